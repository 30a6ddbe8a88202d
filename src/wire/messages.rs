//! Length-prefixed messages of gRPC: one byte for compression, four for the length, then the message.

const PREFIX: usize = 5;

/// Follows a body of messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Messages {
    prefix: [u8; PREFIX],
    have: usize,
    left: u32,
}

impl Messages {
    /// Takes bytes up to the next end of a message, at least one.
    pub fn step(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            if self.left > 0 {
                let part = (bytes.len() - taken).min(self.left as usize);
                self.left -= part as u32;
                taken += part;
            } else {
                let part = (bytes.len() - taken).min(PREFIX - self.have);
                self.prefix[self.have..self.have + part].copy_from_slice(&bytes[taken..taken + part]);
                self.have += part;
                taken += part;
                if self.have < PREFIX {
                    break;
                }
                self.have = 0;
                self.left = u32::from_be_bytes([self.prefix[1], self.prefix[2], self.prefix[3], self.prefix[4]]);
            }
            if self.is_between() {
                break;
            }
        }
        taken
    }

    pub fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_found_wherever_the_bytes_are_cut() {
        let message = |len: usize| [&[0, 0, 0, 0, len as u8][..], &vec![7; len]].concat();
        let bytes = [message(3), message(0), message(200)].concat();
        for step in 1..=bytes.len() {
            let (mut messages, mut at, mut ends) = (Messages::default(), 0, Vec::new());
            for part in bytes.chunks(step) {
                let mut part = part;
                while !part.is_empty() {
                    let taken = messages.step(part);
                    at += taken;
                    part = &part[taken..];
                    if messages.is_between() {
                        ends.push(at);
                    }
                }
            }
            assert_eq!(ends, [8, 13, 218], "{step}");
        }
    }
}
