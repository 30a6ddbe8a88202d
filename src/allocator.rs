//! The allocator of the process: mimalloc, asked for an alignment only where it does not give it anyway.
//!
//! `mimalloc::MiMalloc` asks for one each time, and everything that is larger than a kilobyte or meets no free block of its
//! size then takes the way that is meant for rare alignments. A request allocates some sixty times: that way cost it
//! a twentieth of its instructions.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

#[derive(Debug)]
pub struct Allocator;

/// `MI_MAX_ALIGN_SIZE`: what every block has that is at least as large, as `malloc` of C has it for `max_align_t`.
const NATURAL: usize = 16;

/// A block of so many bytes is aligned well enough as it comes.
fn is_natural(size: usize, align: usize) -> bool {
    align <= NATURAL && align <= size
}

// SAFETY: all blocks are mimalloc's, whichever of its functions they come from, and have size and alignment of their layout:
// `is_natural` says when it gives that alignment unasked. None of its functions unwinds.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size may be asked for, and the alignment of a layout is a power of two.
        unsafe {
            match is_natural(layout.size(), layout.align()) {
                true => mi_malloc(layout.size()).cast(),
                false => mi_malloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe {
            match is_natural(layout.size(), layout.align()) {
                true => mi_zalloc(layout.size()).cast(),
                false => mi_zalloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller's block is one of ours, and not freed yet.
        unsafe { mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`. A block that stays in its place keeps its alignment, and a new one has it as in `alloc`.
        unsafe {
            match is_natural(size, layout.align()) {
                true => mi_realloc(block.cast(), size).cast(),
                false => mi_realloc_aligned(block.cast(), size, layout.align()).cast(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes around all that matter to an allocator, up to blocks that are the system's own.
    fn sizes() -> impl Iterator<Item = usize> {
        (1..=2100).chain((12..=22).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 8]))
    }

    #[test]
    fn every_block_is_aligned_as_its_layout_says() {
        for align in (0..=13).map(|bits| 1_usize << bits) {
            // Neighbours are alive: the first block of a page is aligned better than the others.
            let mut alive = Vec::new();
            for size in sizes() {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the layout has a size, and the blocks are freed below as they were asked for.
                for block in unsafe { [Allocator.alloc(layout), Allocator.alloc_zeroed(layout)] } {
                    assert!(!block.is_null());
                    assert_eq!(block as usize % align, 0, "{size} bytes at {align}");
                    alive.push((block, layout));
                }
                let (zeroed, _) = alive[alive.len() - 1];
                // SAFETY: it has `size` bytes.
                assert!(unsafe { std::slice::from_raw_parts(zeroed, size) }.iter().all(|byte| *byte == 0));
            }
            for (block, layout) in alive {
                // SAFETY: see above.
                unsafe { Allocator.dealloc(block, layout) };
            }
        }
    }

    #[test]
    fn a_block_that_grows_or_shrinks_keeps_its_bytes_and_its_alignment() {
        for align in [1, 8, 16, 64, 4096] {
            let mut layout = Layout::from_size_align(1, align).unwrap();
            // SAFETY: each block is used within its layout, and freed once.
            unsafe {
                let mut block = Allocator.alloc(layout);
                block.write(7);
                for size in [2, 9, 17, 100, 1000, 5000, 200_000, 3000, 24, 3] {
                    block = Allocator.realloc(block, layout, size);
                    layout = Layout::from_size_align(size, align).unwrap();
                    assert_eq!(block as usize % align, 0, "{size} bytes at {align}");
                    assert_eq!(block.read(), 7);
                    block.add(size - 1).write(7);
                    block.write(7);
                }
                Allocator.dealloc(block, layout);
            }
        }
    }
}
