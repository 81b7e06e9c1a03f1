//! Which distribution this is, from `/etc/os-release` (freedesktop.org, os-release(5)).

/// What setup has to know about a distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Distro {
    /// Debian itself; its newer releases have newer etcd.
    Debian { codename: String },
    /// Ubuntu and others that descend from Debian and have its package names.
    DebianLike { name: String },
    /// Setup does not know how to install anything here.
    Other { name: String },
}

impl Distro {
    pub(crate) fn parse(os_release: &str) -> Self {
        let field = |key: &str| {
            let line = os_release.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
            line.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
        };
        let (id, name) = (field("ID"), field("PRETTY_NAME"));
        let family = field("ID_LIKE");
        let name =
            if name.is_empty() { "a system without a name in /etc/os-release".to_owned() } else { name };
        if id == "debian" {
            Self::Debian { codename: field("VERSION_CODENAME") }
        } else if id == "ubuntu"
            || family.split_whitespace().any(|parent| parent == "debian" || parent == "ubuntu")
        {
            Self::DebianLike { name }
        } else {
            Self::Other { name }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_is_known_by_its_codename() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(Distro::parse(text), Distro::Debian { codename: "bookworm".into() });
    }

    #[test]
    fn ubuntu_and_its_descendants_share_debians_package_names() {
        let ubuntu = "PRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\nID=ubuntu\nID_LIKE=debian\n";
        assert_eq!(Distro::parse(ubuntu), Distro::DebianLike { name: "Ubuntu 24.04.1 LTS".into() });
        let mint = "PRETTY_NAME=\"Linux Mint 22\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n";
        assert_eq!(Distro::parse(mint), Distro::DebianLike { name: "Linux Mint 22".into() });
    }

    #[test]
    fn others_are_named_in_what_setup_says() {
        let fedora = "NAME=\"Fedora Linux\"\nID=fedora\nPRETTY_NAME=\"Fedora Linux 43\"\n";
        assert_eq!(Distro::parse(fedora), Distro::Other { name: "Fedora Linux 43".into() });
        assert!(matches!(Distro::parse(""), Distro::Other { .. }));
    }
}
