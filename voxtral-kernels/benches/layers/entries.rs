//! The kernels that are measured.

use std::num::NonZeroUsize;

use voxtral_kernels::{AttentionShape, Cache, Kernels, KeysValues, Mask, Strided, Strides};

use crate::seconds;

/// A kernel with its operands, and the best of its times.
pub(crate) struct Entry {
    pub(crate) name: String,
    /// What it reads and writes at least.
    pub(crate) bytes: f64,
    /// Those of products, which the other kernels have few of.
    pub(crate) multiplications: f64,
    /// Whether those may be of bfloat16.
    pub(crate) narrow: bool,
    pub(crate) seconds: f64,
    /// Computes it with one of several sets of operands.
    call: Box<dyn FnMut(Kernels, usize)>,
    /// Sets of operands, together beyond what a cache holds.
    copies: usize,
    next: usize,
}

/// Makes an entry of a name, with memory that only those that are wanted take.
type Maker = Box<dyn FnOnce(String) -> Entry>;

/// Memory of the operands of a kernel that is bound by memory.
const BYTES: usize = 150 << 20;

impl Entry {
    fn new(
        name: String,
        bytes: usize,
        multiplications: usize,
        call: impl FnMut(Kernels, usize) + 'static,
    ) -> Self {
        Self {
            name,
            bytes: bytes as f64,
            multiplications: multiplications as f64,
            narrow: false,
            seconds: f64::INFINITY,
            call: Box::new(call),
            copies: copies(bytes),
            next: 0,
        }
    }

    pub(crate) fn turn(&mut self, kernels: Kernels) {
        let time = seconds(|| (self.call)(kernels, self.next));
        self.next = (self.next + 1) % self.copies;
        self.seconds = self.seconds.min(time);
    }
}

fn copies(bytes: usize) -> usize {
    (BYTES / bytes).clamp(1, 12)
}

/// Those whose names contain `wanted`.
pub(crate) fn all(wanted: &str) -> Vec<Entry> {
    let window = |n| NonZeroUsize::new(n).map_or(Mask::Causal, Mask::SlidingWindow);
    let encoder = shape([20, 20], 1500, 1500, 64);
    let realtime = shape([32, 32], 1500, 1500, 64);
    let prompt = shape([32, 8], 400, 400, 128);
    let mut makers: Vec<(String, Maker)> = Vec::new();
    let mut attention = |kind: &str, shape: AttentionShape, mask, bf16| {
        let format = if bf16 { "bf16" } else { "f32" };
        let name = format!(
            "attention {kind} {}/{}×{}×{}×{} {format}",
            shape.heads, shape.kv_heads, shape.queries, shape.keys, shape.head_dim
        );
        makers.push((name, Box::new(move |name| attend(name, shape, mask, bf16))));
    };
    for bf16 in [false, true] {
        attention("encoder", encoder, Mask::Full, bf16);
        attention("realtime", realtime, window(750), bf16);
    }
    attention("prompt", prompt, Mask::Causal, false);
    attention("prompt", prompt, Mask::Causal, true);
    for keys in [400, 1500, 8192] {
        for bf16 in [false, true] {
            attention("decode", shape([32, 8], 1, keys, 128), window(8192), bf16);
        }
    }
    for (queries, bf16) in [(4, false), (8, false), (8, true)] {
        let shape = shape([32, 8], queries, 1500, 128);
        attention("decode", shape, window(8192), bf16);
    }
    attention("stream", shape([32, 32], 4, 750, 64), window(750), false);
    makers.push(("gelu 1500×5120".into(), Box::new(gelu)));
    makers.push(("swiglu 400×8192".into(), Box::new(swiglu)));
    makers.push(("rms_norm 400×3072".into(), Box::new(rms_norm)));
    makers.push(("layer_norm 1500×1280".into(), Box::new(layer_norm)));
    makers.push(("rotate 32×400×128".into(), Box::new(rotate)));
    makers
        .into_iter()
        .filter(|(name, _)| name.contains(wanted))
        .map(|(name, make)| make(name))
        .collect()
}

fn shape(
    [heads, kv_heads]: [usize; 2],
    queries: usize,
    keys: usize,
    head_dim: usize,
) -> AttentionShape {
    AttentionShape {
        batch: 1,
        heads,
        kv_heads,
        queries,
        keys,
        head_dim,
    }
}

/// Normal numbers in [-2, 2).
fn values(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| (i * 7919 % 1009) as f32 / 252.3 - 2.0)
        .collect()
}

fn attend(name: String, shape: AttentionShape, mask: Mask, bf16: bool) -> Entry {
    let AttentionShape {
        heads,
        kv_heads,
        queries,
        keys,
        head_dim: d,
        ..
    } = shape;
    let held = kv_heads * keys * d;
    let seen: usize = (keys - queries..keys)
        .map(|i| match mask {
            Mask::Full => keys,
            Mask::Causal => i + 1,
            Mask::SlidingWindow(window) => (i + 1).min(window.get()),
        })
        .sum();
    let size = if bf16 { 2 } else { 4 };
    let bytes = 2 * held * size + 2 * heads * queries * d * 4;
    let all = copies(bytes) * held;
    let (floats, halves) = match bf16 {
        false => (values(all), Vec::new()),
        // Around 1.
        true => (
            Vec::new(),
            (0..all).map(|i| 0x3f00 + (i * 7919 % 256) as u16).collect(),
        ),
    };
    let (values_f, values_h): (Vec<f32>, Vec<u16>) = (floats.clone(), halves.clone());
    let q = values(heads * queries * d);
    let mut out = vec![0.0; q.len()];
    let multiplications = 2 * heads * seen * d;
    let mut entry = Entry::new(name, bytes, multiplications, move |kernels, copy| {
        let strides = Strides::heads_first(kv_heads, keys, d);
        let part = copy * held..(copy + 1) * held;
        let cache = match bf16 {
            false => Cache::F32(KeysValues {
                keys: Strided {
                    elements: &floats[part.clone()],
                    strides,
                },
                values: Strided {
                    elements: &values_f[part],
                    strides,
                },
            }),
            true => Cache::Bf16(KeysValues {
                keys: Strided {
                    elements: &halves[part.clone()],
                    strides,
                },
                values: Strided {
                    elements: &values_h[part],
                    strides,
                },
            }),
        };
        let strides = Strides::time_first(queries, heads, d);
        let q = Strided {
            elements: &q[..],
            strides,
        };
        let out = Strided {
            elements: &mut out[..],
            strides,
        };
        let done = kernels.attend(shape, q, cache, mask, keys, out);
        assert!(done.is_ok());
    });
    entry.narrow = bf16 && queries > 8;
    entry
}

fn gelu(name: String) -> Entry {
    let len = 1500 * 5120;
    let bytes = 8 * len;
    let mut x = values(copies(bytes) * len);
    Entry::new(name, bytes, 0, move |kernels, copy| {
        kernels.gelu(&mut x[copy * len..][..len]);
    })
}

fn swiglu(name: String) -> Entry {
    let len = 400 * 8192;
    let bytes = 12 * len;
    let mut gate = values(copies(bytes) * len);
    let up = gate.clone();
    Entry::new(name, bytes, 0, move |kernels, copy| {
        let done = kernels.swiglu(&mut gate[copy * len..][..len], &up[copy * len..][..len]);
        assert!(done.is_ok());
    })
}

fn rms_norm(name: String) -> Entry {
    let (len, width) = (400 * 3072, 3072);
    let bytes = 8 * len;
    let x = values(copies(bytes) * len);
    let (mut out, weight) = (x.clone(), values(width));
    Entry::new(name, bytes, 0, move |kernels, copy| {
        let (x, out) = (&x[copy * len..][..len], &mut out[copy * len..][..len]);
        assert!(kernels.rms_norm(x, &weight, 1e-5, out).is_ok());
    })
}

fn layer_norm(name: String) -> Entry {
    let (len, width) = (1500 * 1280, 1280);
    let bytes = 8 * len;
    let x = values(copies(bytes) * len);
    let (mut out, weight, bias) = (x.clone(), values(width), values(width));
    Entry::new(name, bytes, 0, move |kernels, copy| {
        let (x, out) = (&x[copy * len..][..len], &mut out[copy * len..][..len]);
        assert!(kernels.layer_norm(x, &weight, &bias, 1e-5, out).is_ok());
    })
}

fn rotate(name: String) -> Entry {
    let (heads, time, d) = (32, 400, 128);
    let len = heads * time * d;
    let bytes = 8 * len;
    let x = values(copies(bytes) * len);
    let mut out = x.clone();
    let (cos, sin) = (values(time * d / 2), values(time * d / 2));
    Entry::new(name, bytes, 0, move |kernels, copy| {
        let x = Strided {
            elements: &x[copy * len..][..len],
            strides: Strides::time_first(time, heads, d),
        };
        let out = Strided {
            elements: &mut out[copy * len..][..len],
            strides: Strides::heads_first(heads, time, d),
        };
        let done = kernels.rotate([1, heads, time, d], x, &cos, &sin, out);
        assert!(done.is_ok());
    })
}
