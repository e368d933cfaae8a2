#!/bin/sh
# Makes the small files of every container and codec in tests/data/audio/formats/, from 0.3
# seconds of speech (tests/data/audio/jfk.wav, from 0.3 s on).
#
# Usage: sh tools/goldens/formats.sh
# Needs: ffmpeg with libmp3lame, libvorbis and libopus.
set -eu
cd "$(dirname "$0")/../../tests/data/audio"
mkdir -p formats
cd formats
rm -f ./*
ff() { ffmpeg -nostdin -loglevel error -y "$@"; }

# The source that every other file is compared with.
ff -ss 0.3 -t 0.3 -i ../jfk.wav -fflags +bitexact -c:a pcm_s16le source.wav

bit="-i source.wav -fflags +bitexact -flags:a +bitexact -map_metadata -1"
ff $bit -c:a pcm_u8 wav-u8.wav
ff $bit -c:a pcm_s24le -ar 8000 wav-s24-8k.wav
ff $bit -c:a pcm_s32le -ar 8000 wav-s32-8k.wav
ff $bit -c:a pcm_f32le wav-f32.wav
ff $bit -c:a pcm_f64le -ar 8000 wav-f64-8k.wav
ff $bit -c:a pcm_alaw wav-alaw.wav
ff $bit -c:a pcm_mulaw wav-mulaw.wav
ff $bit -c:a adpcm_ms wav-adpcm-ms.wav
ff $bit -c:a adpcm_ima_wav wav-adpcm-ima.wav
ff $bit -c:a pcm_s16le -rf64 always wav-rf64.wav
ff $bit -c:a pcm_s16be aiff-s16.aiff
ff $bit -c:a pcm_s16be caf-s16.caf
ff $bit -c:a alac caf-alac.caf
ff $bit -c:a flac -f flac flac.flac
ff $bit -c:a flac -f ogg ogg-flac.oga
ff $bit -c:a mp2 -b:a 64k mp2.mp2
ff $bit -c:a libmp3lame -b:a 48k mp3.mp3
ff $bit -c:a libmp3lame -b:a 96k -ar 44100 -ac 2 mp3-stereo-44k1.mp3
ff $bit -c:a libvorbis ogg-vorbis.ogg
ff $bit -c:a libopus -b:a 32k ogg-opus.opus
ff $bit -c:a libopus -b:a 32k -ac 2 ogg-opus-stereo.opus
ff $bit -c:a libopus -b:a 32k webm-opus.webm
ff $bit -c:a libvorbis webm-vorbis.webm
ff $bit -c:a aac -b:a 48k m4a-aac.m4a
ff $bit -c:a aac -b:a 48k adts-aac.aac
ff $bit -c:a alac m4a-alac.m4a
ff $bit -c:a flac mkv-flac.mkv
ff $bit -c:a pcm_s16le mkv-pcm.mkv
# A film: the sound is its second track.
ff -f lavfi -i color=black:s=16x16:r=5:d=0.3 $bit -map 0:v -map 1:a -c:v mpeg4 -c:a aac -b:a 48k -movflags +faststart mp4-film.mp4
du -cb ./* | tail -1
