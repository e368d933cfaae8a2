//! How transformers splits a model into files.
//!
//! Tensors go, in the natural order of their names inside the model, into a shard until the next
//! would not fit; one that is larger than a shard gets its own. Source: `revert_weight_conversion`
//! of transformers 5.23 for the order, `split_state_dict_into_shards_factory` of huggingface-hub
//! 2.4 for the packing.

/// Splits tensors, given by name inside the model and size, into shards of at most `limit` bytes;
/// gives their places in `tensors`.
pub(crate) fn split(tensors: &[(String, u64)], limit: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_cached_key(|&at| natural_key(&tensors[at].0));
    let mut shards = Vec::new();
    let (mut current, mut filled) = (Vec::new(), 0);
    for at in order {
        let size = tensors[at].1;
        if size > limit {
            shards.push(vec![at]);
            continue;
        }
        if filled + size > limit {
            shards.push(std::mem::take(&mut current));
            filled = 0;
        }
        current.push(at);
        filled += size;
    }
    if !current.is_empty() {
        shards.push(current);
    }
    shards
}

/// A part of a name: numbers come before words and compare by value, as do numbers at the end of
/// words.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String, Option<u64>),
}

fn natural_key(name: &str) -> Vec<Part> {
    let part = |text: &str| {
        let word = text.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = text[word.len()..].parse().ok();
        match number {
            Some(number) if word.is_empty() => Part::Number(number),
            number => Part::Word(word.to_owned(), number),
        }
    };
    name.split('.').map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natural_order() {
        let mut names = [
            "layers.10.w",
            "layers.9.w",
            "conv2.b",
            "conv10.b",
            "conv.b",
            "norm",
        ];
        names.sort_by_key(|name| natural_key(name));
        assert_eq!(
            names,
            [
                "conv.b",
                "conv2.b",
                "conv10.b",
                "layers.9.w",
                "layers.10.w",
                "norm"
            ]
        );
    }

    #[test]
    fn large_tensors_stand_alone_and_do_not_end_a_shard() {
        let sizes = [("a", 4), ("b", 20), ("c", 6), ("d", 1), ("e", 9)];
        let tensors: Vec<_> = sizes
            .iter()
            .map(|&(name, size)| (name.to_owned(), size))
            .collect();
        assert_eq!(split(&tensors, 10), [vec![1], vec![0, 2], vec![3, 4]]);
    }
}
