//! How much memory the program takes: the peak of the real binary while ten times its cache budget passes through, as
//! the kernel accounts for it (`VmHWM`). A plain program; Linux only.

#[expect(dead_code, reason = "the bench of pass-through asks for more")]
mod binary;
#[expect(dead_code, reason = "the bench of requests asks for more")]
mod client;

use avatar_proxy::demo::{Options, StandIn};
use binary::Proxy;
use client::Client;

/// Square pictures of noise as Mattermost stores them: nothing compresses, so each is about 49 kB.
const EDGE: u32 = 128;
const SIZES: [u32; 5] = [24, 32, 40, 64, 128];

fn main() {
    println!("| cache budget | passed through | peak | at start |");
    println!("|---|---|---|---|");
    for (budget, pictures) in [(8, 1_700), (128, 500)] {
        let town = StandIn::start(Options::default()).expect("the stand-in starts");
        let proxy = start(&town, budget);
        let at_start = memory(&proxy, "VmRSS");
        let mut client = Client::connect(proxy.address, &fields(&town.token("alice")));
        let (user, mut passed) = (town.id("bob"), 0);
        for n in 0..pictures {
            let picture = noise(n);
            passed += picture.len();
            town.show("bob", picture);
            for size in SIZES {
                assert_eq!(client.get(&format!("/api/v4/users/{user}/image?size={size}"), "").status, 200);
            }
        }
        let (mib, peak) = (passed >> 20, memory(&proxy, "VmHWM"));
        println!("| {budget} MiB | {mib} MiB in {pictures} pictures | {} MiB | {} MiB |", peak >> 10, at_start >> 10);
    }
}

/// The lines of a client's request.
fn fields(token: &str) -> String {
    format!("Host: bench\r\nAccept: image/webp\r\nCookie: MMAUTHTOKEN={token}\r\n")
}

/// A PNG of noise, another for each `seed`.
fn noise(seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let picture = image::RgbImage::from_fn(EDGE, EDGE, |_, _| {
        // Xorshift (Marsaglia 2003): enough for pixels.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let [r, g, b, _] = state.to_le_bytes();
        image::Rgb([r, g, b])
    });
    let mut file = Vec::new();
    picture.write_to(&mut std::io::Cursor::new(&mut file), image::ImageFormat::Png).expect("encodes");
    file
}

/// A proxy whose caches share `budget` MiB as by default.
fn start(town: &StandIn, budget: u32) -> Proxy {
    let share = |parts: u32| format!("{}KiB", budget * 1024 * parts / 132);
    let (large, small) = (share(64), share(4));
    let caches = [("CACHE__SOURCES", &*large), ("CACHE__VARIANTS", &large), ("CACHE__PIXELS", &small)];
    // Without grants, or the old picture would be shown for half a minute.
    let budgets = [("GRANTS__TTL", "0s"), ("LIMITS__CALLER_MISSES", "0")];
    Proxy::start(&town.url(), &[&caches[..], &budgets].concat())
}

/// A figure of the process in KiB.
fn memory(proxy: &Proxy, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.id())).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel accounts for it");
    line.trim_matches([':', '\t', ' ']).split(' ').next().and_then(|kib| kib.parse().ok()).expect("a number")
}
