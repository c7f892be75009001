//! Where buffers of some size begin in memory: at a multiple of 64 bytes.
//!
//! Of 8 KiB and more, the C library copies with `rep movsb`. AMD's processors since Zen 3 do that
//! at a twentieth of their speed where the destination is 1 to 15 bytes past the source, as far as
//! the lower 12 bits of the two addresses tell. TLS comes to just that: rustls copies each record's
//! text from 5 bytes into its input buffer, of 32 KiB, to memory that malloc(3) takes from right
//! after it, 16 bytes of its own later; a session's bytes then took up to twice their time. With
//! both at multiples of 64 the difference is never one of those 15.

use std::alloc::{GlobalAlloc, Layout, System};

#[global_allocator]
static ALLOCATOR: Aligned = Aligned;

/// The blocks that are aligned: from where the C library uses `rep movsb` up to where malloc(3)
/// maps a block of its own.
const SIZES: std::ops::Range<usize> = 8 * 1024..128 * 1024;
const ALIGNMENT: usize = 64;

/// The system's allocator, with that alignment.
struct Aligned;

/// The layout that the system is asked for: depends on nothing but the caller's.
fn aligned(layout: Layout) -> Layout {
    if !SIZES.contains(&layout.size()) {
        return layout;
    }
    layout.align_to(ALIGNMENT).unwrap_or(layout)
}

// SAFETY: every call goes on to the system's allocator, with a layout of the same size and at least
// the same alignment, and that layout is the same for a block's beginning and its end.
unsafe impl GlobalAlloc for Aligned {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise; see above.
        unsafe { System.alloc(aligned(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise; see above.
        unsafe { System.alloc_zeroed(aligned(layout)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; see above.
        unsafe { System.dealloc(block, aligned(layout)) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise: the size, rounded up to the alignment, is no overflow.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if aligned(layout) == layout && aligned(new) == new {
            // SAFETY: the caller's promise; neither is aligned, so neither layout changes.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: the caller's promise: the size is not 0.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: both blocks are that long, and they are different ones.
            unsafe { std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size)) };
            // SAFETY: the caller's promise.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn buffers_begin_at_a_multiple_of_64() {
        for size in [8192, 16_384, 32_768, 131_071] {
            let blocks: Vec<Vec<u8>> = (0..8).map(|_| Vec::with_capacity(size)).collect();
            assert!(blocks.iter().all(|block| block.as_ptr().addr() % 64 == 0), "{size}");
            assert_eq!(vec![0u8; size], [0].repeat(size));
        }
    }

    #[test]
    fn a_block_that_grows_or_shrinks_keeps_its_bytes() {
        let byte = |at: usize| (at * 31 % 251) as u8;
        let mut block: Vec<u8> = Vec::new();
        for size in [10, 8191, 8192, 8193, 131_071, 131_072, 300_000] {
            block.reserve_exact(size - block.len());
            block.extend((block.len()..size).map(byte));
        }
        for size in [300_000, 140_000, 131_072, 100_000, 8192, 8191, 5] {
            block.truncate(size);
            block.shrink_to_fit();
            assert!(block.iter().enumerate().all(|(at, b)| *b == byte(at)), "{size}");
        }
    }
}
