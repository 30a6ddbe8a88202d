//! Read buffers that a connection holds only while bytes are in them, pooled per data thread.

use std::cell::RefCell;

/// Room for a request head and the start of a body in one read.
const SIZE: usize = 32 * 1024;
/// Room for a head and a small body on their way out.
const OUTPUT: usize = 16 * 1024;
/// Buffers kept for the next reader, per thread.
const KEPT: usize = 64;

thread_local! {
    static FREE_OUTPUT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer for bytes on their way out; give it back with [`give_output`].
pub fn take_output() -> Vec<u8> {
    FREE_OUTPUT.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(OUTPUT))
}

/// Takes an empty output buffer back for the next writer; one that had to grow is let go.
pub fn give_output(buffer: Vec<u8>) {
    if (1..=OUTPUT).contains(&buffer.capacity()) {
        let _ = FREE_OUTPUT.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(buffer);
            }
        });
    }
}

/// Bytes received and not yet taken.
pub struct Input {
    data: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Input {
    pub fn take() -> Input {
        let data = FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SIZE].into_boxed_slice());
        Input { data, start: 0, end: 0 }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start);
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Puts other bytes in the place of the first `count`.
    pub fn replace_front(&mut self, count: usize, with: &[u8]) {
        let rest = &self.data[self.start + count..self.end];
        let mut data = Vec::with_capacity((with.len() + rest.len()).max(SIZE));
        data.extend_from_slice(with);
        data.extend_from_slice(rest);
        self.start = 0;
        self.end = data.len();
        data.resize(data.capacity().max(SIZE), 0);
        self.data = data.into_boxed_slice();
    }

    /// Where to receive into; grows when a head does not fit, up to `limit` bytes in all.
    pub fn room(&mut self, limit: usize) -> &mut [u8] {
        if self.end == self.data.len() {
            if self.start > 0 {
                self.data.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else if self.data.len() < limit {
                let mut larger = vec![0; (self.data.len() * 2).min(limit.max(SIZE))].into_boxed_slice();
                larger[..self.end].copy_from_slice(&self.data[..self.end]);
                self.data = larger;
            }
        }
        &mut self.data[self.end..]
    }

    pub fn received(&mut self, count: usize) {
        self.end += count;
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if self.data.len() == SIZE {
            let data = std::mem::take(&mut self.data);
            // During thread shutdown the pool may be gone already; then the buffer simply goes too.
            let _ = FREE.try_with(|free| {
                let mut free = free.borrow_mut();
                if free.len() < KEPT {
                    free.push(data);
                }
            });
        }
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Input({} bytes)", self.end - self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_does_not_fit_gets_more_room_up_to_the_limit() {
        let mut input = Input::take();
        let mut total = 0;
        loop {
            let room = input.room(100 * 1024).len();
            if room == 0 {
                break;
            }
            input.received(room);
            total += room;
        }
        assert_eq!(total, 100 * 1024);
        input.consume(60 * 1024);
        assert_eq!(input.room(100 * 1024).len(), 60 * 1024, "consumed bytes make room again");
        assert_eq!(input.bytes().len(), 40 * 1024);
    }
}
