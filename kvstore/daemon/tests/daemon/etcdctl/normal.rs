//! What etcdctl says, without what each store has of its own: IDs, times, terms and sizes.

/// Names before a number of their own.
const OF_THEIR_OWN: &[&str] = &[
    "\"raft_term\":",
    "\"RaftTerm\" : ",
    "\"raftTerm\":",
    "\"raftIndex\":",
    "\"RaftIndex\" : ",
    "\"raftAppliedIndex\":",
    "\"RaftAppliedIndex\" : ",
    "\"dbSize\":",
    "\"DBSize\" : ",
    "\"dbSizeInUse\":",
    "\"DBSizeInUse\" : ",
    "\"took\":",
    "\"ttl\":",
    "took = ",
    "remaining(",
];

/// With the same word for all IDs, and without what each has of its own.
pub(crate) fn normal(text: &str) -> String {
    let mut text = same_ids(text);
    for name in OF_THEIR_OWN {
        let mut parts = text.split(name);
        let first = parts.next().unwrap_or_default().to_owned();
        text = parts.fold(first, |text, part| {
            let is_of_it = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | 'µ' | '"');
            text + name + "…" + part.trim_start_matches(is_of_it)
        });
    }
    text.lines().map(|line| of_status(&same_version(&in_order(&narrow(line)))) + "\n").collect()
}

fn same_ids(text: &str) -> String {
    let mut same = String::new();
    for part in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_hex =
            (12..=16).contains(&word.len()) && word.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
        let is_number = word.len() >= 15 && word.chars().all(|c| c.is_ascii_digit());
        same += &if is_hex || is_number { part.replace(word, "ID") } else { part.to_owned() };
    }
    same
}

/// Columns are as wide as what is in them, and IDs have leading zeros or not.
fn narrow(line: &str) -> String {
    match line.as_bytes().first() {
        Some(b'|' | b'M') => line.split_whitespace().collect::<Vec<_>>().join(" "),
        Some(b'+') => line.replace('-', ""),
        _ => line.to_owned(),
    }
}

/// Which 3.5 it is.
fn same_version(line: &str) -> String {
    let mut parts = line.split("3.5.");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| line + "3.5.…" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// Members come in the order of their IDs.
fn in_order(line: &str) -> String {
    let Some(members) = line.strip_prefix("ETCD_INITIAL_CLUSTER=") else { return line.to_owned() };
    let mut members: Vec<&str> = members.trim_matches('"').split(',').collect();
    members.sort_unstable();
    format!("ETCD_INITIAL_CLUSTER={}", members.join(","))
}

/// `endpoint, ID, version, size, leads, learns, term, index, applied index, errors`.
fn of_status(line: &str) -> String {
    let mut fields: Vec<&str> = line.split(", ").collect();
    if fields.len() == 10 && fields[2] == "3.5.…" {
        for own in [3, 6, 7, 8] {
            fields[own] = "…";
        }
    }
    fields.join(", ")
}
