//! Pictures, read again: enough of PNG for what the program writes.

use std::io::Read;

/// Width, height and pixels, each three bytes, of 8-bit RGB in one chunk of data, each row of which
/// is stored as differences from the one above.
pub(crate) fn decode(file: &[u8]) -> (u32, u32, Vec<u8>) {
    assert!(file.starts_with(b"\x89PNG\r\n\x1a\n"));
    let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
    let (width, height) = (number(16), number(20));
    let mut rows = Vec::new();
    // The data follow the header, of 33 bytes.
    let data = &file[41..41 + number(33) as usize];
    flate2::read::ZlibDecoder::new(data)
        .read_to_end(&mut rows)
        .unwrap();
    let size = width as usize * 3;
    let mut pixels = vec![0_u8; size];
    for row in rows.chunks_exact(size + 1) {
        let above = pixels.len() - size;
        for (index, difference) in row[1..].iter().enumerate() {
            pixels.push(pixels[above + index].wrapping_add(*difference));
        }
    }
    (width, height, pixels.split_off(size))
}
