//! What memory holds stays within its budget, whatever passes through, and nobody notices what was let go.

use crate::mattermost::{looks_at, shows, town};
use crate::pictures::{photo, png};
use crate::proxy::Proxy;
use avatar_proxy::config::ByteSize;
use avatar_proxy::demo::Options;

const CACHES: [&str; 3] = ["sources", "variants", "pixels"];

/// 256 KiB in all.
const BUDGETS: [u64; 3] = [128 << 10, 64 << 10, 64 << 10];

/// A counter or a level of each cache.
async fn of_each_cache(proxy: &Proxy, name: &str) -> Vec<u64> {
    let names = CACHES.map(|cache| format!("{name}{{cache=\"{cache}\"}}"));
    proxy.metrics(&names.each_ref().map(String::as_str)).await
}

fn within(held: &[u64]) -> bool {
    held.iter().zip(BUDGETS).all(|(held, budget)| *held <= budget)
}

#[actix_web::test]
async fn f48_ten_times_the_budget_passes_through_and_the_weights_stay_within_it() {
    let town = town();
    let proxy = Proxy::with(town.address(), |config| {
        let cache = &mut config.cache;
        [cache.sources, cache.variants, cache.pixels] = BUDGETS.map(ByteSize::new);
    });
    let residents = Options::default().residents;
    let (mut sources, mut variants) = (0, 0);
    for (seed, resident) in (0..).zip(residents.iter().cycle()) {
        if sources > 10 * BUDGETS[0] && variants > 10 * BUDGETS[1] {
            break;
        }
        let (user, picture) = (&resident.username, photo(seed));
        let source = png(&picture);
        sources += source.len() as u64;
        town.show(user, source);
        for query in ["size=96&format=jpeg&q=100", "size=32&format=jpeg"] {
            let answer = proxy.send(&looks_at(&town, "mmadmin", user, query)).await;
            assert!(answer.status == 200 && shows(&answer, &picture), "{user} {query}");
            variants += answer.body.len() as u64;
        }
        let held = of_each_cache(&proxy, "avatar_proxy_cache_weight_bytes").await;
        assert!(within(&held), "{held:?} after {user}");
    }
    let held = of_each_cache(&proxy, "avatar_proxy_cache_weight_bytes").await;
    // Decoded pixels live for some seconds, which may be over on a busy machine.
    let mut kept = held.iter().zip(BUDGETS).take(2);
    assert!(kept.all(|(held, budget)| *held > budget / 2), "{held:?} is little of {BUDGETS:?}");
    let evicted = of_each_cache(&proxy, "avatar_proxy_cache_evictions_total").await;
    assert!(evicted.iter().all(|count| *count > 0), "{evicted:?}");
}
