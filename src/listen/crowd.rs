//! How many connections each client address has, so that one host cannot have all that there are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether a peer is one that many may stand behind.
type Exempt = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// All clients that are connected, by their addresses; of IPv6 all of a /64 is one, because a client may take any of it. It
/// holds no more entries than there are connections.
pub struct Crowd {
    at_most: usize,
    exempt: Exempt,
    present: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection counts for its address until this is dropped.
pub(super) struct Place(Option<(Arc<Crowd>, IpAddr)>);

impl Crowd {
    /// Nobody yet. An address may have so many connections at once, unless it is exempt.
    pub fn new(at_most: usize, exempt: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { at_most, exempt: Box::new(exempt), present: Mutex::default() })
    }

    /// A client has connected; `None` when its address has as many connections as it may.
    pub(super) fn admit(self: &Arc<Self>, peer: Option<SocketAddr>) -> Option<Place> {
        // Whom the system does not know any more is gone.
        let peer = peer.map(|peer| peer.ip().to_canonical()).filter(|peer| !(self.exempt)(*peer));
        let Some(address) = peer.map(neighbourhood) else { return Some(Place(None)) };
        let mut present = self.present();
        let count = present.entry(address).or_default();
        if *count >= self.at_most {
            return None;
        }
        *count += 1;
        drop(present);
        Some(Place(Some((self.clone(), address))))
    }

    fn present(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing panics in the midst of a change to it.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Crowd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crowd").field("at_most", &self.at_most).finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((crowd, address)) = self.0.take() else { return };
        let mut present = crowd.present();
        if let Entry::Occupied(mut count) = present.entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
                // What an attack has grown is not kept.
                if present.len() < present.capacity() / 4 {
                    present.shrink_to_fit();
                }
            }
        }
    }
}

fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().expect("an address"), 1)
    }

    #[test]
    fn an_address_has_so_many_connections_and_no_more() {
        let crowd = Crowd::new(2, |peer| peer.is_loopback());
        let mut places = Vec::new();
        for (address, is_admitted) in [
            ("203.0.113.1", true),
            ("203.0.113.1", true),
            ("::ffff:203.0.113.1", false),
            ("203.0.113.2", true),
            ("2001:db8::1", true),
            ("2001:db8::2:0:0:2", true),
            ("2001:db8::ffff:3", false),
            ("2001:db8:0:1::1", true),
        ] {
            let place = crowd.admit(Some(peer(address)));
            assert_eq!(place.is_some(), is_admitted, "{address}");
            places.extend(place);
        }
        // Many may stand behind these, and of these nobody keeps a list.
        for _ in 0..10 {
            places.push(crowd.admit(Some(peer("127.0.0.1"))).expect("exempt"));
            places.push(crowd.admit(None).expect("unknown"));
        }
        assert_eq!(crowd.present().len(), 4);

        drop(places.swap_remove(0));
        assert!(crowd.admit(Some(peer("203.0.113.1"))).is_some(), "one has left");
        drop(places);
        assert_eq!(crowd.present().len(), 0);
        assert!(crowd.present().capacity() < 4, "and nothing is kept of it");
    }
}
