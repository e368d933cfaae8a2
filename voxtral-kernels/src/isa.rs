//! Which instructions the kernels use.

use std::env::{self, VarError};
use std::fmt;
use std::str::FromStr;

/// An instruction set for which there are kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// What [`Avx512Bf16`](Self::Avx512Bf16) has, and tiles of bfloat16.
    Amx,
    /// What [`Avx512Vnni`](Self::Avx512Vnni) has, and dot products of pairs of bfloat16.
    Avx512Bf16,
    /// What [`Avx512`](Self::Avx512) has, and dot products of quads of bytes.
    Avx512Vnni,
    /// AVX-512 F, BW, DQ and VL, and what AVX2 has here: vectors of 16, 32 registers.
    Avx512,
    /// AVX2, FMA and F16C: vectors of 8, 16 registers.
    Avx2,
    /// Plain Rust that the compiler vectorizes for the target it builds for.
    Portable,
}

/// A name that is not an instruction set of this processor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{subject} is `{found}`, expected one of {} on this processor",
    list(expected)
)]
pub struct IsaError {
    /// What was set: the environment variable, or "instruction set".
    pub subject: &'static str,
    /// Its value.
    pub found: String,
    /// What this processor has, the best first.
    pub expected: Vec<Isa>,
}

impl Isa {
    /// Every instruction set, the best first.
    pub const ALL: [Self; 6] = [
        Self::Amx,
        Self::Avx512Bf16,
        Self::Avx512Vnni,
        Self::Avx512,
        Self::Avx2,
        Self::Portable,
    ];

    /// The environment variable that [`from_env`](Self::from_env) reads.
    pub const ENV: &str = "VOXTRAL_ISA";

    /// The fastest that this processor has.
    ///
    /// That is the first of [`available`](Self::available), but for [`Avx512Bf16`](Self::Avx512Bf16)
    /// on processors of Intel: their dot products of pairs have half the rate of multiplications in
    /// `f32`, and those that have them were made to have AMX.
    #[must_use]
    pub fn detect() -> Self {
        Self::available()
            .find(|&isa| isa != Self::Avx512Bf16 || !is_intel())
            .unwrap_or(Self::Portable)
    }

    /// What this processor has, the best first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// What [`Isa::ENV`] names, or the best that this processor has where it is unset or empty.
    ///
    /// # Errors
    ///
    /// [`IsaError`] if the variable names nothing that this processor has.
    pub fn from_env() -> Result<Self, IsaError> {
        let name = match env::var(Self::ENV) {
            Ok(name) => name,
            Err(VarError::NotPresent) => String::new(),
            Err(VarError::NotUnicode(name)) => name.to_string_lossy().into_owned(),
        };
        Self::named(&name)
    }

    fn named(name: &str) -> Result<Self, IsaError> {
        if name.is_empty() {
            return Ok(Self::detect());
        }
        name.parse().map_err(|error| IsaError {
            subject: "`VOXTRAL_ISA`",
            ..error
        })
    }

    /// Whether this processor, and its operating system, have it.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => crate::amx::is_available() && Self::Avx512Bf16.is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                is_x86_feature_detected!("avx512bf16") && Self::Avx512Vnni.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                is_x86_feature_detected!("avx512vnni") && Self::Avx512.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && Self::Avx2.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Amx | Self::Avx512Bf16 | Self::Avx512Vnni | Self::Avx512 | Self::Avx2 => false,
            Self::Portable => true,
        }
    }

    /// The name by which it is chosen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    pub(crate) fn unavailable(found: &str) -> IsaError {
        IsaError {
            subject: "instruction set",
            found: found.to_owned(),
            expected: Self::available().collect(),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Of an available instruction set only.
impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Self, IsaError> {
        Self::available()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| Self::unavailable(name))
    }
}

/// Whether Intel made this processor.
fn is_intel() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let vendor = std::arch::x86_64::__cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes) == [*b"Genu", *b"ineI", *b"ntel"]
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn list(isas: &[Isa]) -> String {
    let names: Vec<&str> = isas.iter().map(|isa| isa.name()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_available_name_is_accepted_and_no_other() {
        for isa in Isa::ALL {
            match isa.is_available() {
                true => assert_eq!(Isa::named(isa.name()), Ok(isa)),
                false => assert!(Isa::named(isa.name()).is_err()),
            }
        }
        assert_eq!(Isa::named(""), Ok(Isa::detect()));
        let error = Isa::named("AVX9").unwrap_err();
        let possible = list(&Isa::available().collect::<Vec<_>>());
        assert_eq!(
            error.to_string(),
            format!("`VOXTRAL_ISA` is `AVX9`, expected one of {possible} on this processor")
        );
        assert!(possible.ends_with("portable"));
    }
}
