//! Reads apt's own list of package sources, both formats of sources.list(5), to find the mirror that this system uses.

/// Where the packages of the system's own release come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub(crate) uri: String,
    /// The keyring file that the system checks this mirror with, if it names one.
    pub(crate) signed_by: Option<String>,
}

/// One source of binary packages.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

/// The mirror of release `codename`, among the contents of `*.list` and `*.sources` files.
pub(crate) fn find_mirror(one_line: &[String], deb822: &[String], codename: &str) -> Option<Mirror> {
    let sources = deb822.iter().flat_map(|text| parse_deb822(text));
    let sources = sources.chain(one_line.iter().flat_map(|text| parse_one_line(text)));
    let is_main_archive = |source: &Source| {
        // The release may be named by its codename or by its role; `-security` and `-updates` are other archives.
        let suites = [codename, "stable", "oldstable", "testing", "unstable"];
        source.suites.iter().any(|suite| suites.contains(&suite.as_str()))
            && source.components.iter().any(|component| component == "main")
    };
    let source = sources.into_iter().find(is_main_archive)?;
    let uri = source.uris.into_iter().find(|uri| uri.starts_with("http"))?;
    Some(Mirror { uri, signed_by: source.signed_by })
}

/// The traditional format: `deb [option=value …] uri suite component…`.
fn parse_one_line(text: &str) -> Vec<Source> {
    let parse = |line: &str| {
        let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
        let rest = rest.starts_with(char::is_whitespace).then(|| rest.trim_start())?;
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        let mut words = rest.split_whitespace().map(str::to_owned);
        Some(Source {
            uris: vec![words.next()?],
            suites: vec![words.next()?],
            components: words.collect(),
            signed_by: signed_by.and_then(keyring_file),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// The deb822 format: paragraphs of `Field: value`, continued on indented lines.
fn parse_deb822(text: &str) -> Vec<Source> {
    let without_comments: Vec<&str> =
        text.lines().filter(|line| !line.starts_with('#')).map(str::trim_end).collect();
    without_comments.split(|line| line.is_empty()).filter_map(parse_paragraph).collect()
}

fn parse_paragraph(lines: &[&str]) -> Option<Source> {
    let field = |name: &str| {
        let is_field =
            |line: &&str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        let start = lines.iter().position(is_field)?;
        let first = lines.get(start)?.split_once(':')?.1;
        let more = lines.iter().skip(start + 1).take_while(|line| line.starts_with([' ', '\t']));
        Some(std::iter::once(first).chain(more.copied()).map(str::trim).collect::<Vec<_>>().join(" "))
    };
    let words = |name: &str| -> Vec<String> {
        field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let enabled =
        field("Enabled").is_none_or(|value| !matches!(value.to_lowercase().as_str(), "no" | "false" | "0"));
    let binary = words("Types").iter().any(|kind| kind == "deb");
    (enabled && binary).then(|| Source {
        uris: words("URIs"),
        suites: words("Suites"),
        components: words("Components"),
        signed_by: field("Signed-By").as_deref().and_then(keyring_file),
    })
}

/// `Signed-By` may also hold fingerprints or a whole key, neither of which says where a keyring is.
fn keyring_file(signed_by: &str) -> Option<String> {
    (signed_by.starts_with('/') && !signed_by.contains([' ', ','])).then(|| signed_by.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traditional_format_is_read_with_and_without_options() {
        let text = "# deb http://commented.example/debian bookworm main\n\
            deb-src http://source.example/debian bookworm main\n\
            deb http://security.example/debian-security bookworm-security main\n\
            deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://mirror.example/debian bookworm main contrib # why\n";
        let mirror = find_mirror(&[text.into()], &[], "bookworm");
        let keyring = Some("/usr/share/keyrings/a.gpg".to_owned());
        assert_eq!(mirror, Some(Mirror { uri: "http://mirror.example/debian".into(), signed_by: keyring }));
        let plain = "deb http://plain.example/debian stable main\n".to_owned();
        let mirror = find_mirror(&[plain], &[], "bookworm");
        assert_eq!(mirror, Some(Mirror { uri: "http://plain.example/debian".into(), signed_by: None }));
    }

    #[test]
    fn paragraphs_are_read_with_comments_and_continued_fields() {
        let text = "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n\n\
            Types: deb deb-src\n# a comment\nURIs:\n http://mirror.example/debian\nsuites: bookworm bookworm-updates\n\
            Components: main\nSigned-By: /usr/share/keyrings/b.gpg\n";
        let keyring = Some("/usr/share/keyrings/b.gpg".to_owned());
        let expected = Mirror { uri: "http://mirror.example/debian".into(), signed_by: keyring };
        assert_eq!(find_mirror(&[], &[text.into()], "bookworm"), Some(expected));
    }

    #[test]
    fn an_inline_key_is_not_taken_for_a_keyring() {
        let text = "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm\nComponents: main\n\
            Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEY865UxYJ\n";
        let mirror = find_mirror(&[], &[text.into()], "bookworm");
        assert_eq!(mirror, Some(Mirror { uri: "http://m.example/debian".into(), signed_by: None }));
    }

    #[test]
    fn sources_of_other_archives_are_passed_over() {
        let other =
            "Types: deb\nURIs: https://vendor.example/apt\nSuites: nodistro\nComponents: main\n".to_owned();
        let local = "deb file:/srv/debian bookworm main\n".to_owned();
        assert_eq!(find_mirror(&[local], &[other], "bookworm"), None);
    }
}
