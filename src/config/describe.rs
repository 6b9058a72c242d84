//! What `check` prints: the effective configuration as TOML, where each value came from, what it may cost in memory,
//! and what may not be meant.

use super::keys::KEYS;
use super::load::Loaded;
use super::{ByteSize, Config};
use std::fmt::{self, Write};

impl Loaded {
    /// The effective configuration as a `config.toml` whose comments say where each value came from.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("# avatar-proxy {}: the effective configuration\n", env!("CARGO_PKG_VERSION"));
        let mut section = "";
        for (key, origin) in KEYS.iter().zip(&self.origins) {
            if key.section != section {
                section = key.section;
                writeln!(text, "\n[{section}]").expect("a String takes every write");
            }
            writeln!(text, "{} = {}  # {origin}", key.name, key.show(&self.config))
                .expect("a String takes every write");
        }
        writeln!(text, "\n# {}", MemoryBound::of(&self.config)).expect("a String takes every write");
        for warning in self.config.warnings() {
            writeln!(text, "# warning: {warning}").expect("a String takes every write");
        }
        text
    }
}

/// What the process may take at most, whatever it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBound {
    caches: [ByteSize; 4],
    permits: usize,
    /// Improvers: one, or none.
    improvers: usize,
    decoder_memory: ByteSize,
    frame_pixels: u64,
    pixels: u64,
    source: ByteSize,
}

impl MemoryBound {
    /// The program with its threads, what the allocator holds back, 7 MiB for the budgets of tokens and addresses, and
    /// 12 MiB by which grants are ended and records are at hand.
    pub const BASE: ByteSize = ByteSize::mebibytes(43);
    /// Copies of the lists and events that are overheard while they pass.
    pub const OVERHEARD: ByteSize = ByteSize::mebibytes(80);
    /// A render holds the decoder's memory, the decoded picture and the encoder's copy of it. Pixels are held under a permit
    /// only, or in the cache: what waits for one has none.
    pub const COPIES_A_RENDER: u64 = 3;
    /// Bytes of encoded frames for each of their pixels: noise at the highest quality, and the copies that are made when
    /// the file is put together. At the usual quality it is a third of that, and a real picture takes a hundredth.
    pub const BYTES_A_FRAME_PIXEL: u64 = 5;
    /// What a still picture takes for each of its pixels, from its decoder's memory to the file: noise with an alpha channel
    /// in WebP, of which libwebp holds all that it knows of the channel. An opaque one takes a fifth of that.
    pub const BYTES_A_PIXEL: u64 = 40;
    /// Sources that are not in the cache, each of the longest that is read: on their way in (one of unknown length counts
    /// threefold until all of it is there), waiting for a permit, being rendered, or on their way out to clients who take their
    /// time. What they take is counted byte by byte; what finds no room goes through as a stream, which memory
    /// never holds.
    pub const SOURCES_IN_HAND: u64 = 12;
    /// An idle client connection (14.6 kB measured with 9,000 of them, each of which had asked for something before).
    pub const CONNECTION: ByteSize = ByteSize::new(15_000);

    /// The bound that `config` sets.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            caches: [config.cache.sources, config.cache.variants, config.cache.pixels, config.grants.memory],
            permits: if config.render.permits == 0 { cores } else { config.render.permits },
            improvers: usize::from(config.improve.enabled),
            decoder_memory: config.limits.decoder_memory,
            frame_pixels: config.limits.frame_pixels,
            pixels: config.limits.pixels,
            source: config.limits.source,
        }
    }

    /// What all sources together may take that are not in the cache.
    #[must_use]
    pub fn sources_in_hand(&self) -> ByteSize {
        ByteSize::new(Self::SOURCES_IN_HAND.saturating_mul(self.source.bytes()))
    }

    /// The sum, without the connections.
    #[must_use]
    pub fn total(&self) -> ByteSize {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let caches = self.caches.iter().map(|cache| cache.bytes()).fold(0, u64::saturating_add);
        let pixels = Self::COPIES_A_RENDER.saturating_mul(self.decoder_memory.bytes());
        let frames = Self::BYTES_A_FRAME_PIXEL.saturating_mul(self.frame_pixels);
        let moving = pixels.saturating_add(frames);
        let still = Self::BYTES_A_PIXEL.saturating_mul(self.pixels);
        let renders = count(self.permits)
            .saturating_mul(moving.max(still))
            .saturating_add(count(self.improvers).saturating_mul(pixels));
        ByteSize::new(
            [caches, Self::OVERHEARD.bytes(), renders, self.sources_in_hand().bytes()]
                .into_iter()
                .fold(Self::BASE.bytes(), u64::saturating_add),
        )
    }
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [sources, variants, pixels, grants] = self.caches;
        write!(
            f,
            "memory at most: base {} + caches ({sources} + {variants} + {pixels} + {grants}) + overheard {} + {} render \
             permits x the larger of ({} x {} + {} x {} frame pixels) and {} x {} pixels + {} improver x {} x {} + {} sources in hand x {} = {}, and {} a connection",
            Self::BASE,
            Self::OVERHEARD,
            self.permits,
            Self::COPIES_A_RENDER,
            self.decoder_memory,
            Self::BYTES_A_FRAME_PIXEL,
            self.frame_pixels,
            Self::BYTES_A_PIXEL,
            self.pixels,
            self.improvers,
            Self::COPIES_A_RENDER,
            self.decoder_memory,
            Self::SOURCES_IN_HAND,
            self.source,
            self.total(),
            Self::CONNECTION,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_formula_adds_up() {
        let mut config = Config::default();
        config.render.permits = 2;
        config.limits.frame_pixels = 2 << 20;
        config.limits.pixels = 1 << 20;
        let bound = MemoryBound::of(&config);
        assert_eq!(bound.total(), ByteSize::mebibytes(43 + 132 + 32 + 80 + 2 * (3 * 32 + 5 * 2) + 3 * 32 + 12 * 10));
        config.limits.pixels = 8 << 20;
        let larger = MemoryBound::of(&config);
        assert_eq!(larger.total(), ByteSize::mebibytes(43 + 132 + 32 + 80 + 2 * (40 * 8) + 3 * 32 + 12 * 10));
        assert_eq!(
            bound.to_string(),
            "memory at most: base 43MiB + caches (64MiB + 64MiB + 4MiB + 32MiB) + overheard 80MiB + 2 render permits x the larger of \
             (3 x 32MiB + 5 x 2097152 frame pixels) and 40 x 1048576 pixels + 1 improver x 3 x 32MiB + 12 sources in hand x 10MiB = 715MiB, and 15kB a connection"
        );
    }

    /// A line of the unit.
    fn unit(key: &str) -> u64 {
        let unit = include_str!("../../deploy/avatar-proxy.service");
        let value = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).expect(key);
        value.trim_end_matches('M').parse().expect("a number")
    }

    #[test]
    fn the_unit_has_room_for_four_cores_and_all_the_connections_that_it_allows() {
        let mut config = Config::default();
        config.render.permits = 4;
        let connections = unit("LimitNOFILE") / 2 * MemoryBound::CONNECTION.bytes();
        let needed = MemoryBound::of(&config).total().bytes() + connections;
        let given = unit("MemoryMax") << 20;
        assert!(needed <= given && given - needed < 256 << 20, "{needed} {given}");
    }
}
