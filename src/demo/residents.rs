//! The people of the demo's town: letters as on any server, illustrations, a few photos that are free to publish.

use bytes::Bytes;

use super::illustrations::Style::{self, Arcs, Face, Hills, Identicon};
use super::options::{Portrait, Resident, Role};

/// Every resident.
pub(super) fn cast() -> Vec<Resident> {
    let member = |(username, first_name, last_name, position, look): (&str, &str, &str, &str, Look)| Resident {
        first_name: first_name.to_owned(),
        last_name: last_name.to_owned(),
        position: position.to_owned(),
        ..Resident::new(username, role_of(username), look.portrait())
    };
    let mut cast: Vec<Resident> = PEOPLE.into_iter().map(member).collect();
    for resident in &mut cast {
        resident.deactivated = resident.username == "ivan";
        if resident.role == Role::Outsider {
            resident.teams = Some(Vec::new());
        }
    }
    cast
}

fn role_of(username: &str) -> Role {
    match username {
        "mmadmin" => Role::Admin,
        "mallory" => Role::Outsider,
        "gus" => Role::Guest,
        "painter" | "robo" => Role::Bot,
        _ => Role::Member,
    }
}

/// Where a resident's picture comes from.
enum Look {
    Letter,
    Drawn(Style, u32),
    Embedded(&'static [u8]),
}

impl Look {
    fn portrait(self) -> Portrait {
        match self {
            Self::Letter => Portrait::Default,
            Self::Drawn(style, seed) => Portrait::Illustration(style, seed),
            Self::Embedded(bytes) => Portrait::Png(Bytes::from_static(bytes)),
        }
    }
}

use Look::{Drawn, Embedded, Letter};

const PEOPLE: [(&str, &str, &str, &str, Look); 40] = [
    ("alice", "Alice", "Arden", "Harbour master", Drawn(Face, 21)),
    ("nova", "Nova", "Eriksen", "Flight engineer", Embedded(include_bytes!("assets/astronaut.png"))),
    ("bob", "Bob", "Brandt", "Carpenter", Drawn(Face, 2)),
    ("carol", "Carol", "Chen", "Librarian", Letter),
    ("chelsea", "Chelsea", "Whitlock", "Night watch", Embedded(include_bytes!("assets/chelsea.png"))),
    ("dave", "Dave", "Duarte", "Baker", Drawn(Hills, 3)),
    ("erin", "Erin", "Eze", "Surveyor", Embedded(include_bytes!("assets/dice-lorelei.png"))),
    ("frank", "Frank", "Fischer", "Postman", Letter),
    ("grace", "Grace", "Gallo", "Physician", Drawn(Face, 5)),
    ("gus", "Gus", "Grant", "Visiting painter", Letter),
    ("hugo", "Hugo", "Hahn", "Barista", Embedded(include_bytes!("assets/coffee.png"))),
    ("heidi", "Heidi", "Holm", "Teacher", Letter),
    ("ines", "Ines", "Ibarra", "Architect", Drawn(Arcs, 7)),
    ("ivan", "Ivan", "Ilic", "Retired", Drawn(Identicon, 4)),
    ("jonas", "Jonas", "Jensen", "Gardener", Embedded(include_bytes!("assets/dice-thumbs.png"))),
    ("judy", "Judy", "Jones", "Judge", Drawn(Face, 8)),
    ("kira", "Kira", "Kovac", "Glass blower", Embedded(include_bytes!("assets/dice-shapes.png"))),
    ("leon", "Leon", "Lopez", "Fisherman", Drawn(Hills, 9)),
    ("liam", "Liam", "Larsen", "Student", Letter),
    ("mallory", "Mallory", "Marsh", "Passing through", Drawn(Identicon, 6)),
    ("maya", "Maya", "Mehta", "Astronomer", Drawn(Face, 12)),
    ("mmadmin", "Milo", "Maier", "Administrator", Letter),
    ("niaj", "Niaj", "Noor", "Tailor", Embedded(include_bytes!("assets/dice-pixelart.png"))),
    ("noah", "Noah", "Novak", "Stonemason", Drawn(Arcs, 13)),
    ("nora", "Nora", "Nyberg", "Lighthouse keeper", Drawn(Hills, 14)),
    ("olivia", "Olivia", "Ortega", "Printer", Drawn(Face, 15)),
    ("oscar", "Oscar", "Okafor", "Ferryman", Drawn(Identicon, 16)),
    ("painter", "Painter", "", "Paints the town", Drawn(Arcs, 17)),
    ("paula", "Paula", "Petit", "Florist", Letter),
    ("peggy", "Peggy", "Pryor", "Watchmaker", Drawn(Face, 19)),
    ("quinn", "Quinn", "Quaye", "Archivist", Embedded(include_bytes!("assets/dice-identicon.png"))),
    ("robo", "Robo", "", "Rings the bells", Letter),
    ("rosa", "Rosa", "Ricci", "Cook", Drawn(Face, 23)),
    ("rupert", "Rupert", "Reed", "Bookbinder", Drawn(Hills, 24)),
    ("sven", "Sven", "Strand", "Shipwright", Letter),
    ("sybil", "Sybil", "Stone", "Weather office", Drawn(Identicon, 26)),
    ("trent", "Trent", "Tanaka", "Notary", Letter),
    ("victor", "Victor", "Vogel", "Clockmaker", Drawn(Face, 28)),
    ("wendy", "Wendy", "Wang", "Map maker", Drawn(Arcs, 29)),
    ("yasmin", "Yasmin", "Yilmaz", "Pilot", Letter),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_town_is_as_described() {
        let cast = cast();
        let count = |wanted: fn(&Resident) -> bool| cast.iter().filter(|resident| wanted(resident)).count();
        assert_eq!(cast.len(), 40);
        assert_eq!(count(|resident| resident.role == Role::Bot), 2);
        assert_eq!(count(|resident| resident.deactivated), 1);
        let mut ids: Vec<&str> = cast.iter().map(|resident| resident.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 40);
    }
}
