//! How samples are written as bytes.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::ServerError;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a sample is written; numbers of several bytes begin with the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    I16,
    I32,
    F16,
    F32,
    /// ITU-T G.711, µ-law.
    MuLaw,
    /// ITU-T G.711, A-law.
    ALaw,
}

impl Encoding {
    fn bytes(self) -> usize {
        match self {
            Self::MuLaw | Self::ALaw => 1,
            Self::I16 | Self::F16 => 2,
            Self::I32 | Self::F32 => 4,
        }
    }

    /// Base64 → samples.
    pub(super) fn decode(self, text: &str) -> Result<Vec<f32>, ServerError> {
        let wrong = |reason: String| ServerError::Sound { reason };
        let bytes = BASE64.decode(text);
        let bytes = bytes.map_err(|error| wrong(format!("not base64: {error}")))?;
        let size = self.bytes();
        if !bytes.len().is_multiple_of(size) {
            let found = bytes.len();
            return Err(wrong(format!(
                "{found} bytes, expected whole samples of {size} bytes"
            )));
        }
        let samples: Vec<f32> = bytes
            .chunks_exact(size)
            .map(|bytes| self.sample(bytes))
            .collect();
        match samples.iter().position(|sample| !sample.is_finite()) {
            Some(at) => Err(wrong(format!("sample {at} is {}", samples[at]))),
            None => Ok(samples),
        }
    }

    fn sample(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::I16, &[a, b]) => f32::from(i16::from_le_bytes([a, b])) / 32_768.0,
            (Self::I32, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]) as f32 / 2_147_483_648.0,
            (Self::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f32(),
            (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Self::MuLaw, &[byte]) => f32::from(mu_law(byte)) / 32_768.0,
            (Self::ALaw, &[byte]) => f32::from(a_law(byte)) / 32_768.0,
            // Pieces have the size of a sample.
            _ => 0.0,
        }
    }
}

/// ITU-T G.711, table 2: all bits are inverted; a sign, three bits of exponent, four of mantissa, on
/// a scale of 14 bits that is shifted by 33.
fn mu_law(byte: u8) -> i16 {
    let code = !byte;
    let (exponent, mantissa) = ((code >> 4) & 7, i16::from(code & 15));
    let magnitude = (((mantissa << 1) + 33) << exponent) - 33;
    let sign = if code & 0x80 == 0 { 1 } else { -1 };
    4 * sign * magnitude
}

/// ITU-T G.711, table 1: even bits are inverted; on a scale of 13 bits, the lowest exponent stands
/// for steps as fine as those of the next.
fn a_law(byte: u8) -> i16 {
    let code = byte ^ 0x55;
    let (exponent, mantissa) = ((code >> 4) & 7, i16::from(code & 15));
    let magnitude = match exponent {
        0 => (mantissa << 1) + 1,
        _ => ((mantissa << 1) + 33) << (exponent - 1),
    };
    let sign = if code & 0x80 == 0 { -1 } else { 1 };
    8 * sign * magnitude
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_writes_the_same_numbers() {
        for (encoding, bytes) in [
            (Encoding::I16, vec![0x00, 0x40, 0x00, 0x80]),
            (Encoding::I32, vec![0, 0, 0, 0x40, 0, 0, 0, 0x80]),
            (Encoding::F16, vec![0x00, 0x38, 0x00, 0xbc]),
            (Encoding::F32, vec![0, 0, 0, 0x3f, 0, 0, 0x80, 0xbf]),
        ] {
            let text = BASE64.encode(bytes);
            assert_eq!(encoding.decode(&text).unwrap(), [0.5, -1.0], "{encoding:?}");
            assert_eq!(
                encoding.decode(text.trim_end_matches('=')).unwrap().len(),
                2
            );
        }
    }

    /// Values of the tables of G.711: the ends, zero, and the first steps.
    #[test]
    fn companded_samples_are_those_of_the_standard() {
        for (byte, value) in [
            (0x80, 8031),
            (0x00, -8031),
            (0xff, 0),
            (0x7f, 0),
            (0xfe, 2),
            (0xef, 33),
            (0x8f, 4191),
        ] {
            assert_eq!(mu_law(byte), 4 * value, "{byte:x}");
        }
        for (byte, value) in [
            (0xaa, 4032),
            (0x2a, -4032),
            (0xd5, 1),
            (0x55, -1),
            (0xd4, 3),
            (0xc5, 33),
            (0xf5, 66),
        ] {
            assert_eq!(a_law(byte), 8 * value, "{byte:x}");
        }
    }

    #[test]
    fn what_is_no_sound_is_refused() {
        let of = |bytes: &[u8]| BASE64.encode(bytes);
        for (encoding, text, reason) in [
            (Encoding::I16, "!!".to_owned(), "not base64"),
            (Encoding::I16, of(&[1, 2, 3]), "3 bytes"),
            (
                Encoding::F32,
                of(&f32::NAN.to_le_bytes()),
                "sample 0 is NaN",
            ),
            (Encoding::F16, of(&[0, 0, 0, 0x7c]), "sample 1 is inf"),
        ] {
            let error = encoding.decode(&text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(Encoding::I32.decode("").unwrap().is_empty());
    }
}
