//! Keys and values of the positions that were computed.

mod watch;

use std::num::NonZeroUsize;
use std::ops::Range;

use burn_tensor::{DType, Tensor};
use voxtral_checkpoint::config::AttentionConfig;

use crate::{Backend, NnError, Rotary};
use watch::Watch;

/// Keys and values of every layer, with a fixed capacity, written in place.
///
/// A session owns its cache; the model that fills it is shared. There are two kinds:
///
/// * A plain cache ([`new`](Self::new)) holds every position, until it is full. Its memory grows
///   with the positions.
/// * A ring ([`ring`](Self::ring)) holds what a sliding window sees: position p stands in slot
///   `p mod capacity`, and each new position takes the place of the oldest. It never fills. Since
///   attention with rotary positions depends on distances alone, all keys are turned back by a
///   common angle before positions grow beyond what the angles bear (*re-anchoring*), so that a
///   stream has no end.
#[derive(Debug)]
pub struct KvCache<B: Backend> {
    layers: Vec<LayerCache<B>>,
    /// Positions computed since the beginning.
    len: usize,
    /// The position whose rotary angle is zero.
    anchor: usize,
    /// Positions of the last claim that were not taken back.
    claimed: usize,
    capacity: usize,
    /// Positions that there is memory for.
    reserved: usize,
    head_dim: usize,
    ring: Option<RingConfig>,
}

/// Positions by which the memory of a plain cache grows at least, and the part of it: a longer
/// answer is copied now and then, a long prompt wastes little.
const GROWTH: (usize, usize) = (256, 16);

/// What a ring is made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RingConfig {
    /// Positions that a query sees, its own included.
    pub window: NonZeroUsize,
    /// New positions that are computed at once when the ring has gone round; it has room for
    /// `window + step − 1` positions, so that the first of them still sees its whole window.
    pub step: NonZeroUsize,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// Angles stay below that of this position. Less than twice the capacity counts as that.
    pub max_positions: usize,
}

/// Positions that were claimed in a cache, to be computed now.
#[derive(Debug)]
pub struct Claim<'c, B: Backend> {
    /// The first of them, counted from the beginning.
    pub start: usize,
    /// The positions that rotate their queries and keys.
    pub angles: Range<usize>,
    /// Every layer's memory.
    pub layers: &'c mut [LayerCache<B>],
}

impl<B: Backend> KvCache<B> {
    /// A plain cache for up to `capacity` positions of `layers` layers:
    /// `layers · 2 · num_kv_heads · head_dim` numbers of this precision for each, which is that of
    /// the layers' [`cache_dtype`](crate::Block::cache_dtype).
    pub fn new(
        layers: usize,
        attention: AttentionConfig,
        capacity: usize,
        options: (&B::Device, DType),
    ) -> Self {
        let reserved = capacity.min(GROWTH.0);
        Self::with_memory(layers, attention, (capacity, reserved), options)
    }

    /// A ring, with memory for `window + step − 1` positions, see [`new`](Self::new).
    pub fn ring(
        layers: usize,
        attention: AttentionConfig,
        config: RingConfig,
        options: (&B::Device, DType),
    ) -> Self {
        let capacity = config.window.get() + config.step.get() - 1;
        Self {
            ring: Some(config),
            ..Self::with_memory(layers, attention, (capacity, capacity), options)
        }
    }

    fn with_memory(
        layers: usize,
        attention: AttentionConfig,
        (capacity, reserved): (usize, usize),
        options: (&B::Device, DType),
    ) -> Self {
        let shape = [1, attention.num_kv_heads, reserved, attention.head_dim];
        let zeros = || Some(Tensor::zeros(shape, options));
        Self {
            layers: (0..layers)
                .map(|_| LayerCache {
                    keys: zeros(),
                    values: zeros(),
                    watch: Watch::default(),
                })
                .collect(),
            len: 0,
            claimed: 0,
            anchor: 0,
            capacity,
            reserved,
            head_dim: attention.head_dim,
            ring: None,
        }
    }

    /// Positions computed since the beginning; a ring holds the last of them.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was computed yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Layers that it holds keys and values of.
    pub fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// Positions that are held at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// New positions that can be claimed at once.
    pub fn room(&self) -> usize {
        let free = self.capacity.saturating_sub(self.len);
        // As long as nothing is overwritten, no query loses a key that it sees.
        self.ring.map_or(free, |ring| free.max(ring.step.get()))
    }

    /// Whether the next `new` positions fit.
    ///
    /// # Errors
    /// They do not, see [`room`](Self::room).
    pub fn check_room(&self, new: usize) -> Result<(), NnError> {
        if new > self.room() {
            return Err(NnError::CacheFull {
                capacity: self.capacity,
                used: self.len.min(self.capacity),
                new,
            });
        }
        Ok(())
    }

    /// Claims the next `new` positions.
    ///
    /// # Errors
    /// They do not fit, see [`room`](Self::room).
    pub fn claim(&mut self, new: usize) -> Result<Claim<'_, B>, NnError> {
        self.check_room(new)?;
        if self.ring.is_none() && self.len + new > self.reserved {
            let (least, part) = GROWTH;
            self.reserve(new.max(self.reserved + least.max(self.reserved / part) - self.len));
        }
        if let Some(ring) = self.ring {
            let limit = ring.max_positions.max(2 * self.capacity);
            if self.len + new - self.anchor > limit {
                self.re_anchor(ring.rope_theta);
            }
        }
        let start = self.len;
        self.len += new;
        self.claimed = new;
        let angle = start - self.anchor;
        Ok(Claim {
            start,
            angles: angle..angle + new,
            layers: &mut self.layers,
        })
    }

    /// Lets a plain cache hold up to `capacity` positions, if it does not yet.
    pub fn extend_capacity(&mut self, capacity: usize) {
        if self.ring.is_none() {
            self.capacity = self.capacity.max(capacity);
        }
    }

    /// Makes memory for `more` positions of a plain cache, as far as its capacity goes: a prompt
    /// whose length is known need not be copied while it grows.
    fn reserve(&mut self, more: usize) {
        let wanted = self.capacity.min(self.len + more);
        if let Some(missing) = wanted.checked_sub(self.reserved)
            && missing > 0
        {
            for layer in &mut self.layers {
                layer.grow(missing);
            }
            self.reserved = wanted;
        }
    }

    /// Takes back the last `count` positions of the last claim, as if they had not been claimed.
    ///
    /// In a ring, they have overwritten others, which no query misses. With `len` positions before
    /// a claim of `new ≤ step`, the newest that was overwritten is
    /// `len + new − 1 − capacity ≤ len − window`, and a query from `len` on sees what is newer.
    /// Until the slots are written again, they count as the old positions, so the mask hides them.
    /// Keys that the claim turned back stay so, as does the anchor: the oldest position held before
    /// it, which is not behind any that comes.
    ///
    /// # Errors
    /// The last claim has not so many positions.
    pub fn take_back(&mut self, count: usize) -> Result<(), NnError> {
        let claimed = self.claimed;
        let Some(left) = claimed.checked_sub(count) else {
            return Err(NnError::TakenBack { count, claimed });
        };
        self.claimed = left;
        self.forget_from(self.len - count);
        Ok(())
    }

    /// Forgets all but the first `len` positions of a plain cache, so that another end can follow a
    /// common beginning. A cache of no more positions stays as it is.
    ///
    /// # Errors
    /// The cache is a ring: what its positions have overwritten does not come back.
    pub fn truncate(&mut self, len: usize) -> Result<(), NnError> {
        if self.ring.is_some() {
            return Err(NnError::RingTruncated);
        }
        self.forget_from(self.len.min(len));
        self.claimed = 0;
        Ok(())
    }

    /// Forgets every position and keeps the memory.
    pub fn clear(&mut self) {
        self.forget_from(0);
        self.anchor = 0;
        self.claimed = 0;
    }

    /// Keeps, from now on, the queries of these heads of a layer at the last position of each pass, so
    /// that what they attend to can be asked behind it. In place of those that were watched before.
    ///
    /// # Errors
    /// The cache is a ring, whose keys do not stay, or there is no such layer.
    pub fn watch(&mut self, layer: usize, heads: &[usize]) -> Result<(), NnError> {
        if self.ring.is_some() {
            return Err(NnError::RingWatched);
        }
        let layers = self.layers.len();
        let Some(found) = self.layers.get_mut(layer) else {
            return Err(NnError::Shape {
                subject: "layer",
                found: vec![layer],
                expected: format!("less than [{layers}]"),
            });
        };
        found.watch = Watch::new(heads);
        Ok(())
    }

    /// Every layer's memory.
    pub fn layers(&self) -> &[LayerCache<B>] {
        &self.layers
    }

    /// Forgets the positions from this one on.
    fn forget_from(&mut self, len: usize) {
        self.len = len;
        for layer in &mut self.layers {
            layer.watch.forget_from(len);
        }
    }

    /// Turns all keys back, so that the oldest has the angle zero.
    fn re_anchor(&mut self, theta: f64) {
        let oldest = self.len - self.len.min(self.capacity);
        let back = oldest - self.anchor;
        for layer in &mut self.layers {
            layer.turn_back(back, self.head_dim, theta);
        }
        self.anchor = oldest;
    }
}

/// Keys and values of one layer, each `[1, kv_heads, capacity, head_dim]`.
#[derive(Debug)]
pub struct LayerCache<B: Backend> {
    // Taken out while they are written: a tensor with a second owner would be copied whole.
    keys: Option<Tensor<B, 4>>,
    values: Option<Tensor<B, 4>>,
    watch: Watch<B>,
}

impl<B: Backend> LayerCache<B> {
    /// Writes keys and values `[1, kv_heads, new, head_dim]` of the positions from `start` on and
    /// gives all that are held, slot by slot: the slots of a ring are in no order of time.
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

    /// The same of keys alone, for positions that nothing is to be gathered from.
    pub fn append_keys(&mut self, start: usize, keys: Tensor<B, 4>) -> Tensor<B, 4> {
        write(&mut self.keys, start, keys)
    }

    /// The keys of the first `len` positions of a plain cache.
    pub(crate) fn keys(&self, len: usize) -> Tensor<B, 4> {
        present(self.keys.as_ref()).clone().slice_dim(2, 0..len)
    }

    /// The watched heads, and their queries `[1, heads, positions, head_dim]` at these positions;
    /// nothing where they were not kept.
    pub(crate) fn watched(&self, at: &[usize]) -> Option<(&[usize], Tensor<B, 4>)> {
        self.watch.queries(at)
    }

    /// Takes note of a pass whose queries, `[1, heads, new, head_dim]`, end at this position.
    pub(crate) fn watch_pass(&mut self, last: usize, queries: &Tensor<B, 4>) {
        self.watch.pass(last, queries);
    }

    fn grow(&mut self, positions: usize) {
        for store in [&mut self.keys, &mut self.values] {
            let memory = take(store);
            let [batch, heads, _, d] = memory.dims();
            let options = (&memory.device(), memory.dtype());
            let more = Tensor::zeros([batch, heads, positions, d], options);
            *store = Some(Tensor::cat(vec![memory, more], 2));
        }
    }

    fn turn_back(&mut self, positions: usize, head_dim: usize, theta: f64) {
        let keys = take(&mut self.keys);
        let rotary = Rotary::backward(positions, head_dim, theta, &keys.device());
        self.keys = Some(rotary.rotate(keys));
    }
}

/// Takes a cache's memory out, to be put back by the caller.
fn take<B: Backend>(store: &mut Option<Tensor<B, 4>>) -> Tensor<B, 4> {
    present(store.take())
}

fn present<T>(memory: Option<T>) -> T {
    match memory {
        Some(memory) => memory,
        // Only a panic between the taking and the putting back could have left the memory out.
        None => unreachable!("the cache's memory is put back after every write"),
    }
}

fn write<B: Backend>(
    store: &mut Option<Tensor<B, 4>>,
    start: usize,
    new: Tensor<B, 4>,
) -> Tensor<B, 4> {
    let mut memory = take(store);
    let (capacity, count) = (memory.dims()[2], new.dims()[2]);
    let slot = start % capacity;
    let before_end = count.min(capacity - slot);
    if before_end < count {
        let (first, rest) = (0..before_end, before_end..count);
        memory = B::write(memory, slot, new.clone().slice_dim(2, first));
        memory = B::write(memory, 0, new.slice_dim(2, rest));
    } else {
        memory = B::write(memory, slot, new);
    }
    let held = memory.clone().slice_dim(2, 0..capacity.min(start + count));
    *store = Some(memory);
    held
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

    fn values(x: Tensor<Flex, 4>) -> Vec<f32> {
        x.into_data().into_vec().unwrap()
    }

    fn ring(window: usize, step: usize, max_positions: usize) -> KvCache<Flex> {
        let config = RingConfig {
            window: NonZeroUsize::new(window).unwrap(),
            step: NonZeroUsize::new(step).unwrap(),
            rope_theta: 100.0,
            max_positions,
        };
        KvCache::ring(1, HEADS, config, (&Default::default(), DType::F32))
    }

    #[test]
    fn positions_follow_each_other_in_the_same_memory() {
        let mut cache = KvCache::<Flex>::new(1, HEADS, 3, (&Default::default(), DType::F32));
        let mut memory = Vec::new();
        let mut seen = Vec::new();
        for new in [&[1.0, 2.0, 3.0, 4.0][..], &[5.0, 6.0]] {
            let claim = cache.claim(new.len() / 2).unwrap();
            let (start, layers) = (claim.start, claim.layers);
            let (keys, held) = layers[0].append(start, rows(new), rows(new));
            seen = values(keys);
            assert_eq!(seen, values(held));
            let stored = layers[0].keys.clone().unwrap().into_primitive().tensor();
            memory.push(stored.bytes().as_ptr());
        }
        assert_eq!(seen, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(memory[0], memory[1], "written in place, not copied");
    }

    #[test]
    fn a_full_cache_says_so() {
        let mut cache = KvCache::<Flex>::new(1, HEADS, 3, (&Default::default(), DType::F32));
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

    #[test]
    fn the_oldest_entries_of_a_ring_leave_one_by_one() {
        let mut cache = ring(3, 2, 1000);
        let mut held: Vec<f32> = Vec::new();
        let mut memory = Vec::new();
        for position in 0..11 {
            let claim = cache.claim(1).unwrap();
            assert_eq!(claim.start, position);
            let x = [position as f32, -1.0];
            let (keys, _) = claim.layers[0].append(position, rows(&x), rows(&x));
            let before = std::mem::take(&mut held);
            held = values(keys).chunks(2).map(|row| row[0]).collect();
            let (left, _): (Vec<f32>, Vec<f32>) =
                before.into_iter().partition(|x| !held.contains(x));
            let expected = position.checked_sub(4).map(|oldest| oldest as f32);
            assert_eq!(left, expected.into_iter().collect::<Vec<_>>());
            let stored = claim.layers[0].keys.clone().unwrap();
            memory.push(stored.into_primitive().tensor().bytes().as_ptr());
        }
        assert_eq!(held, [8.0, 9.0, 10.0, 7.0]);
        memory.dedup();
        assert_eq!(memory.len(), 1, "written in place, not copied");
    }

    #[test]
    fn a_step_that_goes_round_is_written_in_two_parts() {
        let mut cache = ring(2, 3, 1000);
        assert_eq!(cache.room(), 4);
        for start in [0, 3] {
            let claim = cache.claim(3).unwrap();
            let x: Vec<f32> = (start..start + 3).flat_map(|p| [p as f32; 2]).collect();
            let (keys, _) = claim.layers[0].append(claim.start, rows(&x), rows(&x));
            let slots: Vec<f32> = values(keys).chunks(2).map(|row| row[0]).collect();
            let expected: &[f32] = if start == 0 {
                &[0.0, 1.0, 2.0]
            } else {
                &[4.0, 5.0, 2.0, 3.0]
            };
            assert_eq!(slots, expected);
        }
        assert!(cache.claim(4).is_err(), "the first would lose a key");
    }

    #[test]
    fn what_was_taken_back_is_written_again() {
        let mut cache = KvCache::<Flex>::new(1, HEADS, 4, (&Default::default(), DType::F32));
        for (new, back) in [(3, 2), (2, 2), (3, 0)] {
            let claim = cache.claim(new).unwrap();
            let (start, end) = (claim.start, claim.start + new);
            let x: Vec<f32> = (start..end).flat_map(|p| [p as f32; 2]).collect();
            let (keys, _) = claim.layers[0].append(start, rows(&x), rows(&x));
            let expected: Vec<f32> = (0..end).flat_map(|p| [p as f32; 2]).collect();
            assert_eq!(values(keys), expected);
            cache.take_back(back).unwrap();
        }
        assert_eq!((cache.len(), cache.room()), (4, 0));
        cache.take_back(1).unwrap();
        let error = cache.take_back(3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "KV cache cannot take back 3 positions, expected at most 2, those of its last claim"
        );
        assert_eq!(cache.len(), 3);
    }

    /// Whatever the pieces: what was written stays, and little more is reserved than is held.
    #[test]
    fn memory_grows_with_the_positions() {
        for pieces in [vec![1; 700], vec![255, 2, 300, 1, 1], vec![900]] {
            let mut cache = KvCache::<Flex>::new(1, HEADS, 1000, (&Default::default(), DType::F32));
            let mut expected = Vec::new();
            let mut found = Vec::new();
            for new in pieces {
                let claim = cache.claim(new).unwrap();
                let start = claim.start;
                let x: Vec<f32> = claim.angles.flat_map(|p| [p as f32; 2]).collect();
                expected.extend_from_slice(&x);
                let (keys, held) = claim.layers[0].append(start, rows(&x), rows(&x));
                found = values(keys);
                assert_eq!(found, values(held));
                assert!(cache.reserved >= cache.len());
                assert!(cache.reserved <= cache.len().max(256) + 256, "{start}");
            }
            assert_eq!(found, expected);
        }
        let mut cache = KvCache::<Flex>::new(1, HEADS, 1000, (&Default::default(), DType::F32));
        cache.reserve(600);
        assert_eq!((cache.reserved, cache.room()), (600, 1000));
        cache.reserve(2000);
        assert_eq!((cache.reserved, cache.room()), (1000, 1000));
        cache.extend_capacity(1500);
        assert_eq!((cache.reserved, cache.room()), (1000, 1500));
        let layer = &cache.layers[0];
        assert_eq!(layer.keys.as_ref().unwrap().dims(), [1, 1, 1000, 2]);
    }

    #[test]
    fn another_end_follows_a_beginning_that_is_kept() {
        let mut cache = KvCache::<Flex>::new(1, HEADS, 5, (&Default::default(), DType::F32));
        let mut held = Vec::new();
        // What is kept, and what is added to it.
        for (kept, end) in [(9, 5.0), (2, 20.0), (2, 30.0), (0, 40.0)] {
            cache.truncate(kept).unwrap();
            let claim = cache.claim(3).unwrap();
            let start = claim.start;
            let x: Vec<f32> = claim.angles.flat_map(|p| [end + p as f32; 2]).collect();
            let (keys, _) = claim.layers[0].append(start, rows(&x), rows(&x));
            held.push(values(keys).chunks(2).map(|row| row[0]).collect::<Vec<_>>());
        }
        assert_eq!(
            held,
            [
                vec![5.0, 6.0, 7.0],
                vec![5.0, 6.0, 22.0, 23.0, 24.0],
                vec![5.0, 6.0, 32.0, 33.0, 34.0],
                vec![40.0, 41.0, 42.0],
            ]
        );
        cache.truncate(1).unwrap();
        assert!(cache.take_back(1).is_err(), "of no claim any more");
        assert_eq!((cache.len(), cache.room()), (1, 4));
    }

    #[test]
    fn a_ring_keeps_no_beginning() {
        let error = ring(3, 1, 1000).truncate(0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "KV cache is a ring, which cannot be truncated: clear it and run the positions again"
        );
    }

    /// Every claim, and what is taken back of it, in every slot: a query misses nothing.
    #[test]
    fn no_query_of_a_ring_misses_what_was_overwritten_and_taken_back() {
        let (window, step) = (5, 4);
        let mut cache = ring(window, step, 20);
        let device = Default::default();
        for turn in 0..2000_usize {
            let new = 1 + turn % step;
            let back = (turn / step) % (new + 1);
            let claim = cache.claim(new).unwrap();
            let (start, end) = (claim.start, claim.start + new);
            let rotary = Rotary::new(claim.angles, 2, 100.0, &device);
            let vectors: Vec<f32> = (0..new).flat_map(|_| [0.8, -0.3]).collect();
            let turned = rotary.rotate(rows(&vectors));
            let x: Vec<f32> = (start..end).flat_map(|p| [p as f32; 2]).collect();
            let (keys, held) = claim.layers[0].append(start, turned.clone(), rows(&x));
            let held = values(held);
            let products = values(turned.matmul(keys.swap_dims(2, 3)));
            let slots = held.len() / 2;
            for query in start..end {
                for key in (query + 1).saturating_sub(window)..=query {
                    let slot = key % cache.capacity();
                    assert_eq!(held[slot * 2], key as f32, "{query} sees {key}");
                    let expected = 0.73 * ((query - key) as f64).cos();
                    let found = f64::from(products[(query - start) * slots + slot]);
                    assert!((found - expected).abs() < 1e-5, "{query} sees {key} turned");
                }
            }
            cache.take_back(back).unwrap();
        }
        assert!(cache.len() > 50 * cache.capacity());
    }

    #[test]
    fn angles_stay_small_and_distances_stay_the_same() {
        let (window, limit) = (3, 10);
        let mut cache = ring(window, 1, limit);
        let device = Default::default();
        let key = [0.8, -0.3];
        let mut turns = 0;
        for position in 0..1000 {
            let claim = cache.claim(1).unwrap();
            assert!(claim.angles.end <= limit);
            turns += usize::from(position > 0 && claim.angles.start < window + 1);
            let rotary = Rotary::new(claim.angles.clone(), 2, 100.0, &device);
            let turned = rotary.rotate(rows(&key));
            let (keys, _) = claim.layers[0].append(position, turned.clone(), rows(&key));
            // The product of one vector with itself at a distance tells the distance.
            let mut found: Vec<f32> = values(keys.matmul(turned.swap_dims(2, 3)));
            found.sort_by(f32::total_cmp);
            let mut expected: Vec<f32> = (0..=position.min(window - 1))
                .map(|distance| (0.73 * (distance as f64).cos()) as f32)
                .collect();
            expected.sort_by(f32::total_cmp);
            for (x, y) in found.iter().zip(&expected) {
                assert!((x - y).abs() < 1e-6, "{x} instead of {y} at {position}");
            }
        }
        assert!(turns > 100, "re-anchored {turns} times");
    }
}
