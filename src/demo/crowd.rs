//! A town of many made-up people, for loads: some with letters, some with pictures of their own, in channels.

use super::illustrations::Style;
use super::letters::fnv1a;
use super::options::{Channel, Options, Portrait, Resident, Role, Team};

/// How many people share a channel, beside the town square of all.
const ROOM: usize = 40;

impl Options {
    /// A town of so many members in one team: every second has a picture of their own, the others a letter; each is in
    /// the town square and in one channel of up to 40. Nobody has a session yet: [`sessions`](super::StandIn::sessions)
    /// opens one for each. The same number always makes the same town.
    #[must_use]
    pub fn crowd(people: usize) -> Self {
        let team = Team::new("crowd");
        let residents: Vec<Resident> = (0..people).map(resident).collect();
        let room = |(number, people): (usize, &[Resident])| Channel {
            members: people.iter().map(|resident| resident.id.clone()).collect(),
            ..Channel::new(&format!("room {number}"), &team)
        };
        let channels = residents.chunks(ROOM).enumerate().map(room).collect();
        Self { residents, channels, teams: vec![team], ..Self::empty() }
    }
}

/// Usernames begin with any letter, as the letters of default pictures are to differ.
fn resident(number: usize) -> Resident {
    let first = char::from(b"abcdefghijklmnopqrstuvwxyz"[number % 26]);
    let username = format!("{first}{number:05}");
    let seed = fnv1a(&username);
    let styles = [Style::Face, Style::Hills, Style::Arcs, Style::Identicon];
    let portrait = if number.is_multiple_of(2) {
        Portrait::Default
    } else {
        Portrait::Illustration(styles[number / 2 % styles.len()], seed)
    };
    Resident { first_name: format!("Person {number}"), ..Resident::new(&username, Role::Member, portrait) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::ids::is_id;
    use super::*;

    #[test]
    fn everybody_is_somebody_else_and_somewhere() {
        let options = Options::crowd(2_000);
        let ids: HashSet<&str> = options.residents.iter().map(|resident| resident.id.as_str()).collect();
        let names: HashSet<&str> = options.residents.iter().map(|resident| resident.username.as_str()).collect();
        let placed: HashSet<&str> =
            options.channels.iter().flat_map(|channel| &channel.members).map(String::as_str).collect();
        assert_eq!([ids.len(), names.len(), placed.len(), options.channels.len()], [2_000, 2_000, 2_000, 50]);
        assert!(ids.iter().all(|id| is_id(id)) && placed == ids);
        let photos = options.residents.iter().filter(|resident| resident.stamp > 0).count();
        assert_eq!(photos, 1_000);
    }
}
