//! What is drawn where.

use std::io::Read;

use voxtral_audio::MelConfig;
use voxtral_pipeline::{Decoder, LongOptions, TranscribeOptions, Voxtral};

use super::*;

#[path = "../../tests/cli/png.rs"]
mod png_file;

use png_file::decode;

const MEL: MelConfig = MelConfig {
    sample_rate: 16_000,
    window_size: 400,
    hop_length: 160,
    num_mel_bins: 80,
};

const STREAM: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../samples/digits-stream-en.wav"
);

fn sound() -> Sound {
    Sound::read(Decoder::open(STREAM).unwrap(), Some(MEL)).unwrap()
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
    };
    let (width, _, pixels) = decode(&draw(&picture).unwrap());
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

/// What the demo hears in the sample, with what it attends to.
#[cfg(feature = "flex")]
fn transcript(keeps_attention: bool) -> Transcript {
    let model = Voxtral::<burn_flex::Flex>::builder().demo().unwrap();
    let options = LongOptions {
        transcribe: TranscribeOptions {
            word_times: true,
            keeps_attention,
            ..Default::default()
        },
        window: Some(Duration::from_secs(4)),
        ..Default::default()
    };
    let recording = model.recording(Decoder::open(STREAM).unwrap(), &options, None);
    model.start_long(recording.unwrap()).finish().unwrap()
}

#[cfg(feature = "flex")]
#[test]
fn attention_is_drawn_where_each_word_is_heard_and_its_path_upon_it() {
    let sound = sound();
    let drawn = |transcript: &Transcript| {
        let picture = Picture {
            name: "a.wav",
            model: "demo",
            sound: &sound,
            transcript: Some(transcript),
            alignment: true,
        };
        decode(&draw(&picture).unwrap())
    };
    let kept = transcript(true);
    let (width, height, pixels) = drawn(&kept);
    let time = Time::new(sound.duration);
    let pixel = |column: i32, row: i32| {
        let at = (row * width as i32 + column) as usize * 3;
        RGBColor(pixels[at], pixels[at + 1], pixels[at + 2])
    };
    let light = |RGBColor(r, g, b)| u32::from(r) + u32::from(g) + u32::from(b);
    let top = height as i32 - LEGEND - AXIS - ALIGNMENT;
    let words = kept.words.as_deref().unwrap();
    assert!(words.len() > 5 && words.last().unwrap().start > Duration::from_secs(8));
    for (index, word) in words.iter().enumerate() {
        let attention = word.attention.as_ref().unwrap();
        // Its row of the panel, above the bar, and beside the point of the path.
        let lane = f64::from(ALIGNMENT - 8) / words.len() as f64;
        let row = top + ((index as f64 + 0.2) * lane) as i32;
        let weight = |at: f64| {
            let here = |(start, _): &&(Duration, f32)| {
                let start = start.as_secs_f64();
                (start..start + attention.stretch.as_secs_f64()).contains(&at)
            };
            attention.weights.iter().find(here).map_or(0.0, |it| it.1)
        };
        let place = attention.place.as_secs_f64() + 0.01;
        assert!(weight(place) > 0.05, "{word:?}");
        let far = (place + 3.0) % (time.duration - 0.5);
        let (at, away) = (pixel(time.column(place), row), pixel(time.column(far), row));
        if weight(far) < weight(place) / 2.0 {
            assert!(
                light(at) > light(away),
                "{}: {at:?} beside {away:?}",
                word.word
            );
        }
        let middle = (
            place - 0.01 + attention.stretch.as_secs_f64() / 2.0,
            index as f64 + 0.5,
        );
        let middle = (time.column(middle.0), top + (middle.1 * lane) as i32);
        assert_eq!(pixel(middle.0, middle.1), WHITE, "{}", word.word);
    }
    // Without it, the bars are there, on white.
    let (_, _, pixels) = drawn(&transcript(false));
    let count = |color: RGBColor| {
        let is = |pixel: &&[u8]| **pixel == [color.0, color.1, color.2];
        pixels.chunks_exact(3).filter(is).count()
    };
    assert!(count(alignment::SPAN) > 100);
}

/// An hour of 8 kHz in which a tone is heard for a second in each five minutes.
fn hour() -> impl Read + Send + Sync + 'static {
    const RATE: u32 = 8_000;
    let mut header = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    header.extend(RATE.to_le_bytes());
    header.extend((RATE * 2).to_le_bytes());
    header.extend(b"\x02\0\x10\0data\xff\xff\xff\xff");
    let tone = |sample: u32| (f64::from(sample) * 0.6).sin() * 9_000.0;
    let tone: Vec<u8> = (0..RATE)
        .flat_map(|sample| (tone(sample) as i16).to_le_bytes())
        .collect();
    let minutes = u64::from(RATE) * 2 * (5 * 60 - 1);
    (0..12).fold(
        Box::new(std::io::Cursor::new(header)) as Box<dyn Read + Send + Sync>,
        |before, _| {
            let tone = std::io::Cursor::new(tone.clone());
            Box::new(before.chain(tone).chain(std::io::repeat(0).take(minutes)))
        },
    )
}

#[test]
fn an_hour_is_seen_from_afar() {
    let sound = Sound::read(Decoder::from_stream(hour()).unwrap(), Some(MEL)).unwrap();
    assert_eq!(sound.duration, Duration::from_secs(3600));
    let picture = Picture {
        name: "hour.wav",
        model: "demo",
        sound: &sound,
        transcript: None,
        alignment: false,
    };
    let (width, _, pixels) = decode(&draw(&picture).unwrap());
    assert_eq!(f64::from(width), WIDTHS.1);
    let time = Time::new(sound.duration);
    let pixel = |column: i32, row: i32| {
        let at = (row * time.width + column) as usize * 3;
        RGBColor(pixels[at], pixels[at + 1], pixels[at + 2])
    };
    // A second is a column: twelve of them go up to the peak, and there is silence between.
    let row = HEADER + 12;
    let loud: Vec<i32> = time
        .columns()
        .skip(2)
        .filter(|&column| pixel(column, row) != SILENCE)
        .collect();
    for tone in 1..12 {
        let column = time.column(f64::from(tone) * 300.0);
        assert!(loud.iter().any(|loud| (loud - column).abs() <= 2), "{tone}");
        let between = time.column(f64::from(tone) * 300.0 + 150.0);
        assert_eq!(pixel(between, row), SILENCE);
    }
    assert!(loud.len() <= 48, "{loud:?}");
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
