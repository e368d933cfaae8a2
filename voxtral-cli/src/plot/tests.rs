//! What is drawn where.

use std::io::Read;

use voxtral_audio::MelConfig;
use voxtral_pipeline::Decoder;

use super::*;

const MEL: MelConfig = MelConfig {
    sample_rate: 16_000,
    window_size: 400,
    hop_length: 160,
    num_mel_bins: 80,
};

fn sound() -> Sound {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../samples/digits-stream-en.wav"
    );
    Sound::read(Decoder::open(path).unwrap(), Some(MEL)).unwrap()
}

/// Width, height and pixels of what [`draw`] wrote.
fn decode(file: Vec<u8>) -> (u32, u32, Vec<u8>) {
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

#[test]
fn a_picture_without_words_shows_sound_and_silence() {
    let sound = sound();
    let silences = sound.silences();
    assert!(!silences.is_empty(), "words are spoken alone, with gaps");
    let picture = Picture {
        name: "a.wav",
        model: "demo",
        sound: &sound,
        transcript: None,
        alignment: true,
        attention: None,
    };
    let (width, _, pixels) = decode(draw(&picture).unwrap());
    let time = Time::new(sound.duration);
    assert_eq!(width, time.width as u32);
    let pixel = |column: i32, row: i32| {
        let at = (row * time.width + column) as usize * 3;
        RGBColor(pixels[at], pixels[at + 1], pixels[at + 2])
    };
    // The waveform's panel is grey where nothing is heard, and white beside.
    let row = HEADER + 3;
    for silence in &silences {
        let middle = time.column((silence.start + silence.end) / 2.0);
        assert_eq!(pixel(middle, row), SILENCE, "{silence:?}");
    }
    let loud = &sound.sound[0];
    let middle = time.column((loud.start + loud.end) / 2.0);
    assert_eq!(pixel(middle, row), WHITE);
}

#[test]
fn attention_and_its_path_are_drawn_behind_each_other() {
    let sound = sound();
    let (steps, frames) = (5, 40);
    let mut weights = vec![0.0; steps * frames];
    let path: Vec<usize> = (0..steps).map(|step| step * 8 + 4).collect();
    for (step, &frame) in path.iter().enumerate() {
        weights[step * frames + frame] = 1.0;
    }
    let mut picture = Picture {
        name: "a.wav",
        model: "demo",
        sound: &sound,
        transcript: None,
        alignment: true,
        attention: None,
    };
    let without = decode(draw(&picture).unwrap());
    picture.attention = Some(Attention {
        weights: &weights,
        frames,
        path: &path,
    });
    let with = decode(draw(&picture).unwrap());
    assert_eq!((with.0, with.1), (without.0, without.1));
    let bright = |pixels: &[u8]| {
        let is_bright = |pixel: &&[u8]| pixel == &[252, 253, 191];
        pixels.chunks_exact(3).filter(is_bright).count()
    };
    assert!(bright(&with.2) > bright(&without.2) + 100);
}

#[test]
fn time_goes_from_left_to_right() {
    for seconds in [0.0, 0.01, 4.0, 30.0, 36_000.0] {
        let time = Time::new(Duration::from_secs_f64(seconds));
        let columns = time.columns();
        assert_eq!(time.column(0.0), columns.start);
        assert_eq!(time.column(time.duration), columns.end);
        assert_eq!(time.column(1e9), columns.end);
        assert!(f64::from(time.width) <= WIDTHS.1 && f64::from(time.width) >= WIDTHS.0);
        assert!(time.share(columns.end - 1).end <= 1.0 + 1e-9);
    }
}

#[test]
fn clocks_are_short() {
    let clock = |seconds| clock(Duration::from_secs_f64(seconds));
    assert_eq!(
        [clock(1.5), clock(61.0), clock(36_000.0)],
        ["1.50 s", "1:01", "10:00:00"]
    );
}
