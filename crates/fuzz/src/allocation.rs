//! How much memory an input takes: an allocator that counts by thread.
//!
//! Invariant: what one thread allocates and frees is counted for it alone. Memory of C code (SQLite) is not seen.
#![expect(
    unsafe_code,
    reason = "an allocator can be counted by an allocator only"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counting;

/// What a thread took since it was asked to count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of all allocations.
    pub bytes: u64,
    /// How many there were.
    pub count: u64,
    /// The most bytes that were in use at one time, beyond those in use at the beginning.
    pub peak: u64,
}

thread_local! {
    static TAKEN: Cell<(u64, u64, i64, i64)> = const { Cell::new((0, 0, 0, 0)) };
}

fn took(bytes: usize) {
    // A thread that is ending has nothing to count any more.
    let _ending = TAKEN.try_with(|taken| {
        let (all, count, now, peak) = taken.get();
        let now = now + bytes as i64;
        taken.set((all + bytes as u64, count + 1, now, peak.max(now)));
    });
}

fn gave(bytes: usize) {
    let _ending = TAKEN.try_with(|taken| {
        let (all, count, now, peak) = taken.get();
        taken.set((all, count, now - bytes as i64, peak));
    });
}

/// Begins to count for this thread.
pub fn begin() {
    TAKEN.with(|taken| taken.set((0, 0, 0, 0)));
}

/// What this thread took since [`begin`].
pub fn taken() -> Taken {
    let (bytes, count, _, peak) = TAKEN.with(Cell::get);
    Taken {
        bytes,
        count,
        peak: peak.max(0) as u64,
    }
}

// SAFETY: every call is handed on to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        gave(layout.size());
        took(size);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(at, layout, size) }
    }
}
