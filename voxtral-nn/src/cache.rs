//! Keys and values of the positions that were computed.

use burn_tensor::{DType, Tensor};
use voxtral_checkpoint::config::AttentionConfig;

use crate::{Backend, NnError};

/// Keys and values of every layer, with a fixed capacity, written in place.
///
/// A session owns its cache; the model that fills it is shared.
#[derive(Debug)]
pub struct KvCache<B: Backend> {
    layers: Vec<LayerCache<B>>,
    len: usize,
    capacity: usize,
}

impl<B: Backend> KvCache<B> {
    /// Memory for `capacity` positions of `layers` layers:
    /// `layers · 2 · num_kv_heads · head_dim · capacity` numbers of four bytes.
    pub fn new(
        layers: usize,
        attention: AttentionConfig,
        capacity: usize,
        device: &B::Device,
    ) -> Self {
        let shape = [1, attention.num_kv_heads, capacity, attention.head_dim];
        let zeros = || Some(Tensor::zeros(shape, (device, DType::F32)));
        Self {
            layers: (0..layers)
                .map(|_| LayerCache {
                    keys: zeros(),
                    values: zeros(),
                })
                .collect(),
            len: 0,
            capacity,
        }
    }

    /// Positions computed so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was computed yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Claims the next `new` positions and gives the first of them, with every layer's memory.
    ///
    /// # Errors
    /// They do not fit.
    pub fn claim(&mut self, new: usize) -> Result<(usize, &mut [LayerCache<B>]), NnError> {
        if new > self.capacity - self.len {
            return Err(NnError::CacheFull {
                capacity: self.capacity,
                used: self.len,
                new,
            });
        }
        let start = self.len;
        self.len += new;
        Ok((start, &mut self.layers))
    }

    /// Forgets every position and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

/// Keys and values of one layer, each `[1, kv_heads, capacity, head_dim]`.
#[derive(Debug)]
pub struct LayerCache<B: Backend> {
    // Taken out while they are written: a tensor with a second owner would be copied whole.
    keys: Option<Tensor<B, 4>>,
    values: Option<Tensor<B, 4>>,
}

impl<B: Backend> LayerCache<B> {
    /// Writes keys and values `[1, kv_heads, new, head_dim]` at position `start` and gives all
    /// from the first position to the last one written.
    pub fn append(
        &mut self,
        start: usize,
        keys: Tensor<B, 4>,
        values: Tensor<B, 4>,
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        (
            write(&mut self.keys, start, keys),
            write(&mut self.values, start, values),
        )
    }
}

fn write<B: Backend>(
    store: &mut Option<Tensor<B, 4>>,
    start: usize,
    new: Tensor<B, 4>,
) -> Tensor<B, 4> {
    let end = start + new.dims()[2];
    let written = match store.take() {
        Some(memory) => B::write(memory, start, new),
        // Only a panic between the two lines could have left the memory out.
        None => unreachable!("the cache's memory is put back after every write"),
    };
    let seen = written.clone().slice_dim(2, 0..end);
    *store = Some(written);
    seen
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;
    use burn_tensor::TensorData;

    use super::*;

    const HEADS: AttentionConfig = AttentionConfig {
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 2,
    };

    fn rows(values: &[f32]) -> Tensor<Flex, 4> {
        let data = TensorData::new(values.to_vec(), [1, 1, values.len() / 2, 2]);
        Tensor::from_data(data, &Default::default())
    }

    #[test]
    fn positions_follow_each_other_in_the_same_memory() {
        let mut cache = KvCache::<Flex>::new(1, HEADS, 3, &Default::default());
        let mut memory = Vec::new();
        let mut seen = Vec::new();
        for new in [&[1.0, 2.0, 3.0, 4.0][..], &[5.0, 6.0]] {
            let (start, layers) = cache.claim(new.len() / 2).unwrap();
            let (keys, values) = layers[0].append(start, rows(new), rows(new));
            seen = keys.into_data().into_vec::<f32>().unwrap();
            assert_eq!(seen, values.into_data().into_vec::<f32>().unwrap());
            let stored = layers[0].keys.clone().unwrap().into_primitive().tensor();
            memory.push(stored.bytes().as_ptr());
        }
        assert_eq!(seen, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(memory[0], memory[1], "written in place, not copied");
    }

    #[test]
    fn a_full_cache_says_so() {
        let mut cache = KvCache::<Flex>::new(1, HEADS, 3, &Default::default());
        cache.claim(2).unwrap();
        let error = cache.claim(2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "KV cache holds 3 positions, of which 2 are used: 2 more do not fit"
        );
        assert_eq!(cache.len(), 2, "nothing was claimed");
        cache.clear();
        assert!(cache.claim(3).is_ok());
    }
}
