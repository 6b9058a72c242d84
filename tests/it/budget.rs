//! What memory holds stays within its budget, whatever passes through, and nobody notices what was let go.

use crate::mattermost::{looks_at, shows, town};
use crate::pictures::{photo, png};
use crate::proxy::Proxy;
use avatar_proxy::config::ByteSize;
use avatar_proxy::demo::Options;

const BUDGET: u64 = 256 << 10;

#[actix_web::test]
async fn f48_ten_times_the_budget_passes_through_and_the_weights_stay_within_it() {
    let town = town();
    let proxy = Proxy::with(town.address(), |config| {
        let cache = &mut config.cache;
        (cache.sources, cache.variants, cache.pixels) =
            (ByteSize::new(BUDGET), ByteSize::new(BUDGET), ByteSize::new(BUDGET));
    });
    let residents = Options::default().residents;
    let (mut sources, mut variants) = (0, 0);
    for seed in 0.. {
        if sources > 10 * BUDGET && variants > 10 * BUDGET {
            break;
        }
        let user = &residents[usize::try_from(seed).expect("few") % residents.len()].username;
        let picture = photo(seed);
        let source = png(&picture);
        sources += source.len() as u64;
        town.show(user, source);
        for query in ["size=96&format=png", "size=72&format=png", "size=48&format=png"] {
            let answer = proxy.send(&looks_at(&town, "mmadmin", user, query)).await;
            assert!(answer.status == 200 && shows(&answer, &picture), "{user} {query}");
            variants += answer.body.len() as u64;
        }
        let held = proxy.metrics(&CACHES.map(weight).each_ref().map(String::as_str)).await;
        eprintln!("{seed} {sources} {variants} {held:?}");
    }
    let evictions = CACHES.map(|cache| format!("avatar_proxy_cache_evictions_total{{cache=\"{cache}\"}}"));
    let evicted = proxy.metrics(&evictions.each_ref().map(String::as_str)).await;
    assert!(evicted.iter().all(|count| *count > 0), "{evicted:?}");
}

const CACHES: [&str; 3] = ["sources", "variants", "pixels"];

fn weight(cache: &str) -> String {
    format!("avatar_proxy_cache_weight_bytes{{cache=\"{cache}\"}}")
}
