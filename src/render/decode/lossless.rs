//! What the prefix codes of a lossless WebP take in memory (RFC 9649 sections 3.7.2 and 3.7.3). A dozen bytes of a file can
//! stand for a table of 4 KiB, and there may be 65,536 groups of five codes, of which the decoder builds every one: here
//! they are read and counted beforehand, and nothing of them is kept.

use super::{DecodeError, broken, cut_off};

/// The order in which the lengths of the code for lengths come.
const ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// How many symbols each of the codes of a group has: green with lengths, red, blue, alpha, distances.
const ALPHABETS: [u16; 5] = [256 + 24, 256, 256, 256, 40];
/// What every code takes: its place in a list that grows by doubling, and the place that it had before.
const PLACE: u64 = 170;
/// The decoder looks up so many bits at once; a longer code is followed through a tree.
const TABLE_BITS: usize = 10;
/// Two nodes of that tree.
const TREE: u64 = 32;

/// The bytes that the prefix codes of a picture take in the decoder. `data` begins with the transforms, behind the header
/// where there is one.
///
/// # Errors
/// More than `most`, or what cannot be read.
pub(super) fn codes(data: &[u8], (width, height): (u32, u32), most: u64) -> Result<u64, DecodeError> {
    let mut bits = Bits { bytes: data, at: 0 };
    let width = bits.transforms(width, height)?;
    let cache = bits.colour_cache()?;
    let groups = if bits.take(1)? == 1 {
        let block = bits.take(3)? + 2;
        1 + bits.image(blocks(width, block), blocks(height, block))?
    } else {
        1
    };
    let mut total = 0;
    for _ in 0..groups {
        for code in ALPHABETS.into_iter().enumerate() {
            total += PLACE + bits.code(alphabet(code, cache))?.memory();
            if total > most {
                return Err(DecodeError::OverLimit("decoder memory"));
            }
        }
    }
    Ok(total)
}

fn alphabet((place, symbols): (usize, u16), cache: u16) -> u16 {
    if place == 0 { symbols + cache } else { symbols }
}

/// How many blocks of so many bits there are along an edge.
fn blocks(edge: u32, bits: u32) -> u32 {
    edge.div_ceil(1 << bits)
}

/// A prefix code.
enum Code {
    /// Of one symbol, which takes no bit.
    One(u16),
    /// How many symbols there are of each length, and all of them in the order of their codes.
    Many([u16; 16], Vec<u16>),
}

impl Code {
    /// The code whose symbols have these lengths, 0 for none.
    fn of(lengths: &[u8]) -> Result<Self, DecodeError> {
        let mut counts = [0_u16; 16];
        for &length in lengths {
            counts[usize::from(length)] += 1;
        }
        counts[0] = 0;
        let used =
            |length: u8| (0_u16..).zip(lengths).filter(move |(_, each)| **each == length).map(|(symbol, _)| symbol);
        let symbols: Vec<u16> = (1..16).filter(|&length| counts[usize::from(length)] > 0).flat_map(used).collect();
        if let [only] = symbols[..] {
            return Ok(Self::One(only));
        }
        let free = counts[1..].iter().fold(1_i64, |free, &count| 2 * free - i64::from(count));
        if free != 0 { Err(broken("a prefix code with gaps")) } else { Ok(Self::Many(counts, symbols)) }
    }

    fn memory(&self) -> u64 {
        let Self::Many(counts, _) = self else { return 0 };
        let longest = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        let long: u64 = counts[TABLE_BITS + 1..].iter().map(|&count| u64::from(count)).sum();
        (4 << longest.min(TABLE_BITS)) + TREE * long.max(2)
    }
}

/// The bits of a file, the lowest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl Bits<'_> {
    /// What comes next, at least 57 bits of it; behind the end there are zeros.
    fn window(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let mut eight = [0; 8];
        let count = rest.len().min(8);
        eight[..count].copy_from_slice(&rest[..count]);
        u64::from_le_bytes(eight) >> (self.at % 8)
    }

    fn skip(&mut self, count: u32) -> Result<(), DecodeError> {
        self.at += usize::try_from(count).expect("a few bits");
        if self.at > 8 * self.bytes.len() { Err(cut_off()) } else { Ok(()) }
    }

    /// A number of at most 31 bits.
    fn take(&mut self, count: u32) -> Result<u32, DecodeError> {
        let value = self.window() & ((1 << count) - 1);
        self.skip(count)?;
        Ok(u32::try_from(value).expect("at most 31 bits"))
    }

    fn short(&mut self, count: u32) -> Result<u16, DecodeError> {
        self.take(count).map(|value| u16::try_from(value).expect("at most 16 bits"))
    }

    /// Reads over the transforms and says how wide the picture is that they leave.
    fn transforms(&mut self, mut width: u32, height: u32) -> Result<u32, DecodeError> {
        let mut seen = [false; 4];
        while self.take(1)? == 1 {
            let kind = self.take(2)?;
            let again = &mut seen[usize::try_from(kind).expect("two bits")];
            if std::mem::replace(again, true) {
                return Err(broken("a transform that comes twice"));
            }
            match kind {
                0 | 1 => {
                    let block = self.take(3)? + 2;
                    self.image(blocks(width, block), blocks(height, block))?;
                }
                2 => {}
                _ => {
                    let colours = self.take(8)? + 1;
                    self.image(colours, 1)?;
                    let bits = match colours {
                        ..=2 => 3,
                        3..=4 => 2,
                        5..=16 => 1,
                        _ => 0,
                    };
                    width = blocks(width, bits);
                }
            }
        }
        Ok(width)
    }

    /// How many colours are remembered.
    fn colour_cache(&mut self) -> Result<u16, DecodeError> {
        if self.take(1)? == 0 {
            return Ok(0);
        }
        match self.take(4)? {
            bits @ 1..=11 => Ok(1 << bits),
            _ => Err(broken("a colour cache of no size")),
        }
    }

    /// Reads over a picture within the picture, which has one group of codes, and says what its pixels' upper two channels,
    /// red and green, come to at most. No pixel is another than one that was spelt out, or zero.
    fn image(&mut self, width: u32, height: u32) -> Result<u32, DecodeError> {
        let cache = self.colour_cache()?;
        let mut codes = Vec::with_capacity(ALPHABETS.len());
        for code in ALPHABETS.into_iter().enumerate() {
            codes.push(self.code(alphabet(code, cache))?);
        }
        let [green, red, blue, alpha, distance] = &codes[..] else { unreachable!("a group has five codes") };
        if let (Code::One(green @ 0..256), Code::One(red), Code::One(_), Code::One(_)) = (green, red, blue, alpha) {
            return Ok(u32::from(*red) << 8 | u32::from(*green));
        }
        let (mut left, mut most) = (u64::from(width) * u64::from(height), 0);
        while left > 0 {
            let symbol = self.symbol(green)?;
            let pixels = match symbol {
                ..256 => {
                    most = most.max(u32::from(self.symbol(red)?) << 8 | u32::from(symbol));
                    self.symbol(blue)?;
                    self.symbol(alpha)?;
                    1
                }
                256..280 => {
                    let length = self.distance(symbol - 256)?;
                    let back = self.symbol(distance)?;
                    self.distance(back)?;
                    length
                }
                280.. => 1,
            };
            left = left.checked_sub(pixels).ok_or_else(|| broken("more pixels than there are"))?;
        }
        Ok(most)
    }

    /// A length or a distance that begins with `prefix` (section 3.6.2.2).
    fn distance(&mut self, prefix: u16) -> Result<u64, DecodeError> {
        if prefix < 4 {
            return Ok(u64::from(prefix) + 1);
        }
        let extra = u32::from(prefix - 2) >> 1;
        let offset = (2 + u64::from(prefix & 1)) << extra;
        Ok(offset + u64::from(self.take(extra)?) + 1)
    }

    fn symbol(&mut self, code: &Code) -> Result<u16, DecodeError> {
        let (counts, symbols) = match code {
            Code::One(symbol) => return Ok(*symbol),
            Code::Many(counts, symbols) => (counts, symbols),
        };
        let mut window = self.window();
        let (mut code, mut first, mut before) = (0_usize, 0_usize, 0_usize);
        for (length, &count) in (1_u32..).zip(&counts[1..]) {
            code |= usize::from(window & 1 == 1);
            window >>= 1;
            let count = usize::from(count);
            if code < first + count {
                self.skip(length)?;
                return Ok(symbols[before + code - first]);
            }
            before += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(broken("a prefix code with gaps"))
    }

    /// Reads a code of an alphabet of so many symbols (section 3.7.2.1).
    fn code(&mut self, symbols: u16) -> Result<Code, DecodeError> {
        if self.take(1)? == 0 {
            return Code::of(&self.lengths(symbols)?);
        }
        let two = self.take(1)? == 1;
        let wide = self.take(1)?;
        let first = self.short(1 + 7 * wide)?;
        let second = if two { Some(self.short(8)?) } else { None };
        if first.max(second.unwrap_or(0)) >= symbols {
            return Err(broken("a symbol that there is none of"));
        }
        Ok(match second {
            None => Code::One(first),
            Some(second) => {
                let mut counts = [0; 16];
                counts[1] = 2;
                Code::Many(counts, vec![first, second])
            }
        })
    }

    /// The lengths of a code, which are in a code themselves.
    fn lengths(&mut self, symbols: u16) -> Result<Vec<u8>, DecodeError> {
        let mut of_lengths = [0; ORDER.len()];
        let count = usize::from(4 + self.short(4)?);
        for place in &ORDER[..count] {
            of_lengths[*place] = u8::try_from(self.take(3)?).expect("three bits");
        }
        let code = Code::of(&of_lengths)?;
        let mut left = symbols;
        if self.take(1)? == 1 {
            let bits = 2 + 2 * self.take(3)?;
            left = self
                .short(bits)?
                .checked_add(2)
                .filter(|left| *left <= symbols)
                .ok_or_else(|| broken("too many symbols"))?;
        }
        let (whole, mut lengths, mut last) = (usize::from(symbols), Vec::with_capacity(usize::from(symbols)), 8);
        while lengths.len() < whole && left > 0 {
            left -= 1;
            let (length, times) = match self.symbol(&code)? {
                16 => (last, 3 + self.take(2)?),
                17 => (0, 3 + self.take(3)?),
                18 => (0, 11 + self.take(7)?),
                length => (u8::try_from(length).expect("below 16"), 1),
            };
            if length > 0 {
                last = length;
            }
            lengths.resize(lengths.len() + usize::try_from(times).expect("at most 138"), length);
        }
        if lengths.len() > whole { Err(broken("more lengths than symbols")) } else { Ok(lengths) }
    }
}
