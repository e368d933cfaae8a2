//! The PNG format, of 8-bit RGB: <https://www.w3.org/TR/png/>.

use std::io::{self, Write};

use flate2::{Compression, Crc, write::ZlibEncoder};

const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'];

/// 8 bits a channel, RGB, deflated, adaptive filters, not interlaced.
const KIND: [u8; 5] = [8, 2, 0, 0, 0];

/// Each byte is stored as its difference from the one above, which suits tall rectangles.
const FILTER_UP: u8 = 2;

/// A picture of rows of RGB pixels.
pub(super) fn encode(pixels: &[u8], (width, height): (u32, u32)) -> io::Result<Vec<u8>> {
    let mut header = Vec::from(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend(KIND);
    let mut file = Vec::from(SIGNATURE);
    chunk(&mut file, *b"IHDR", &header);
    chunk(&mut file, *b"IDAT", &rows(pixels, width as usize * 3)?);
    chunk(&mut file, *b"IEND", &[]);
    Ok(file)
}

fn rows(pixels: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    let mut above = vec![0; size];
    for row in pixels.chunks_exact(size) {
        let differences = row.iter().zip(&above).map(|(a, b)| a.wrapping_sub(*b));
        let filtered: Vec<u8> = std::iter::once(FILTER_UP).chain(differences).collect();
        zlib.write_all(&filtered)?;
        above.copy_from_slice(row);
    }
    zlib.finish()
}

/// Length, name, data and checksum of name and data.
fn chunk(file: &mut Vec<u8>, name: [u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let from = file.len();
    file.extend(name);
    file.extend(data);
    let mut crc = Crc::new();
    crc.update(&file[from..]);
    file.extend(crc.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_red_pixel_is_the_file_that_others_write() {
        let file = encode(&[255, 0, 0], (1, 1)).unwrap();
        assert_eq!(&file[..8], b"\x89PNG\r\n\x1a\n");
        // Header and its checksum as Pillow writes them.
        let header = b"\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde";
        assert_eq!(&file[8..33], header);
        // The end has no data, so its checksum is always the same.
        assert_eq!(file[file.len() - 12..], *b"\0\0\0\0IEND\xaeB`\x82");
    }
}
