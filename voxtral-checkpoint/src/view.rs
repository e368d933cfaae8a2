//! What a checkpoint gives of a tensor.

use std::fmt;

use bytes::Bytes;

use crate::dtype::{self, Dtype};

/// Type, shape and size of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// How its elements are stored.
    pub dtype: Dtype,
    /// Its dimensions, the slowest first.
    pub shape: Vec<usize>,
    /// Its size.
    pub bytes: usize,
}

/// A tensor's data as it is stored.
#[derive(Clone)]
pub struct TensorView {
    /// How the elements are stored.
    pub dtype: Dtype,
    /// The dimensions, the slowest first.
    pub shape: Vec<usize>,
    /// The elements, row by row, little-endian, at an address that suits their type. Where it is a
    /// slice of a mapped file, holding it keeps the mapping alive.
    pub data: Bytes,
}

impl TensorView {
    /// A view of `data`, moved if it does not lie aligned.
    pub(crate) fn new(dtype: Dtype, shape: Vec<usize>, data: Bytes) -> Self {
        Self {
            dtype,
            shape,
            data: aligned(data, dtype.size()),
        }
    }

    /// The number of elements.
    pub fn num_elements(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// The same tensor stored as `dtype`: itself, or a copy that rounds to nearest even.
    #[must_use]
    pub fn into_dtype(self, dtype: Dtype) -> Self {
        if dtype == self.dtype {
            return self;
        }
        let mut data = Vec::with_capacity(self.num_elements() * dtype.size());
        dtype::convert(&self.data, self.dtype, dtype, &mut data);
        Self::new(dtype, self.shape, data.into())
    }

    /// The elements, widened.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut wide = Vec::with_capacity(self.num_elements());
        dtype::each_f32(&self.data, self.dtype, |x| wide.push(x));
        wide
    }
}

impl fmt::Debug for TensorView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TensorView({} {:?}, {} bytes)",
            self.dtype,
            self.shape,
            self.data.len()
        )
    }
}

/// `data` itself, or a copy of it at a multiple of `alignment`: writers need not pad their headers,
/// and bytes embedded in a program may lie anywhere.
fn aligned(data: Bytes, alignment: usize) -> Bytes {
    if data.as_ptr().align_offset(alignment) == 0 {
        return data;
    }
    let mut room: Vec<u8> = Vec::with_capacity(data.len() + alignment);
    let start = room.as_ptr().align_offset(alignment);
    room.resize(start, 0);
    room.extend_from_slice(&data);
    Bytes::from(room).slice(start..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misaligned_data_is_moved_and_aligned_data_is_not() {
        let whole = Bytes::from((0u8..64).collect::<Vec<_>>());
        for offset in 0..4 {
            let slice = whole.slice(offset..offset + 16);
            let view = TensorView::new(Dtype::F32, vec![4], slice.clone());
            assert_eq!(view.data, slice);
            assert_eq!(view.data.as_ptr().align_offset(4), 0);
            let was_aligned = slice.as_ptr().align_offset(4) == 0;
            assert_eq!(view.data.as_ptr() == slice.as_ptr(), was_aligned);
        }
    }
}
