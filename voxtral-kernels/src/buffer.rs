//! Memory of the kernels.

use std::marker::PhantomData;

/// A cache line, which is also the widest vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

const LINE: usize = 16;

/// Memory that starts at a cache line and is used again.
#[derive(Default)]
pub(crate) struct Buffer(Vec<Line>);

impl Buffer {
    /// `len` values, whatever they are.
    pub(crate) fn get(&mut self, len: usize) -> &mut [f32] {
        let lines = len.div_ceil(LINE);
        if self.0.len() < lines {
            self.0 = vec![Line([0.0; LINE]); lines];
        }
        // SAFETY: a `Line` is `LINE` values without padding, and there are enough of them.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }

    /// `len` words, whatever they are.
    pub(crate) fn words(&mut self, len: usize) -> &mut [u32] {
        let values = self.get(len);
        // SAFETY: both are 32 bits of any value.
        unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), len) }
    }
}

/// The values of a slice, of which several threads write different ones.
#[derive(Debug)]
pub(crate) struct Shared<'a, T = f32> {
    first: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a `&mut [T]`, which may be sent, and whose parts `part` hands out once.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            first: slice.as_mut_ptr(),
            len: slice.len(),
            slice: PhantomData,
        }
    }

    /// The `len` values from `start` on.
    ///
    /// # Safety
    ///
    /// While the part lives, no other part that overlaps it does.
    #[inline]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: within the slice, by the line above; not shared, by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(start), len) }
    }
}

impl<T> Clone for Shared<'_, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}
