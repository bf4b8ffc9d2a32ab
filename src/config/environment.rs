//! Which variables of the environment are options.
//!
//! Kubernetes gives every container variables for each service of its
//! namespace, and those of a service called `quantd` or `quantd-web` look like
//! ours: `QUANTD_PORT=tcp://10.0.0.1:80`, `QUANTD_WEB_SERVICE_HOST=10.0.0.1`.
//! Such a link sets nothing here, whatever its name is.

use std::ffi::OsString;

use clap::{Arg, CommandFactory, FromArgMatches};

use super::Cli;

/// Reads the command line and the environment.
///
/// # Errors
/// What the parser says, of `--help` and `--version` as well.
pub fn parse() -> Result<Cli, clap::Error> {
    let unlink = |option: Arg| if linked(&option).is_some() { unset(option) } else { option };
    let command = Cli::command().mut_args(unlink).mut_subcommands(|verb| verb.mut_args(unlink));
    // Options of `serve` may be given without a verb; to another verb their variables mean nothing.
    let matches = match command.clone().mut_args(unset).try_get_matches() {
        Ok(matches) if matches.subcommand().is_some() => matches,
        _ => command.try_get_matches()?,
    };
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut Cli::command()))
}

fn unset(option: Arg) -> Arg {
    option.env(None)
}

/// The variable of an option that is a link to a service.
fn linked(option: &Arg) -> Option<String> {
    let name = option.get_env()?.to_str()?;
    let value = std::env::var_os(name)?;
    is_service_link(name, value.to_str()?).then(|| name.to_owned())
}

/// Variables that have the names of options and are links to services.
#[must_use]
pub fn links() -> Vec<String> {
    let command = Cli::command();
    command.get_arguments().filter_map(linked).collect()
}

/// The first environment variable called `QUANTD_*` that sets nothing: most
/// likely a misspelt one, and a limit that was meant to hold.
#[must_use]
pub fn unknown_variable() -> Option<String> {
    unknown(std::env::vars_os())
}

fn unknown(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Option<String> {
    let command = Cli::command();
    let known = |name: &str| {
        let own = std::iter::once(&command).chain(command.get_subcommands());
        let mut variables = own.flat_map(clap::Command::get_arguments).filter_map(Arg::get_env);
        variables.any(|variable| variable == name)
    };
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    };
    variables
        .into_iter()
        .filter_map(text)
        .find(|(name, value)| {
            name.starts_with("QUANTD_") && !known(name) && !is_service_link(name, value)
        })
        .map(|(name, _)| name)
}

/// Whether it is one of the variables that Kubernetes makes of a service.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    let parts: Vec<&str> = name.split('_').collect();
    match parts.as_slice() {
        [_, .., "SERVICE", "HOST" | "PORT"] => true,
        [.., "PORT", number, "TCP" | "UDP" | "SCTP"]
        | [.., "PORT", number, "TCP" | "UDP" | "SCTP", "ADDR" | "PORT" | "PROTO"]
            if is_number(number) =>
        {
            true
        }
        // A port with a name of its own.
        _ if name.contains("_SERVICE_PORT_") => is_number(value),
        // Without an address it is more likely meant for us, and misspelt.
        [.., "PORT"] => {
            ["tcp://", "udp://", "sctp://"].iter().any(|start| value.starts_with(start))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_unknown(variables: &[(&str, &str)]) -> Option<String> {
        unknown(variables.iter().map(|&(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn links_to_services_of_any_name_set_nothing() {
        for service in ["QUANTD", "QUANTD_WEB", "QUANTD_MAX_BODY", "QUANTD_PORT", "QUANTD_V2_80"] {
            for (end, value) in [
                ("SERVICE_HOST", "10.0.0.1"),
                ("SERVICE_HOST", "fd00::1"),
                ("SERVICE_PORT", "80"),
                ("SERVICE_PORT_HTTP", "80"),
                ("SERVICE_PORT_HTTP_ALT", "8080"),
                ("SERVICE_PORT_DNS_UDP", "53"),
                ("SERVICE_PORT_PORT", "80"),
                ("PORT", "tcp://10.0.0.1:80"),
                ("PORT", "udp://[fd00::1]:53"),
                ("PORT_80_TCP", "tcp://10.0.0.1:80"),
                ("PORT_80_TCP_PROTO", "tcp"),
                ("PORT_80_TCP_PORT", "80"),
                ("PORT_80_TCP_ADDR", "10.0.0.1"),
                ("PORT_53_UDP", "udp://10.0.0.1:53"),
                ("PORT_36412_SCTP_ADDR", "10.0.0.1"),
            ] {
                let name = format!("{service}_{end}");
                assert_eq!(first_unknown(&[(&name, value)]), None, "{name}={value}");
            }
        }
    }

    #[test]
    fn a_misspelt_variable_is_found_beside_links() {
        let link = ("QUANTD_WEB_SERVICE_HOST", "10.0.0.1");
        for name in [
            "QUANTD_MAX_BODY_BYTE",
            "QUANTD_MAX_BODY",
            "QUANTD_HTTP_PORT",
            "QUANTD_PORTS",
            "QUANTD_PORT_TCP",
            "QUANTD_SERVICE",
            "QUANTD_HOSTNAME",
            "QUANTD_",
        ] {
            let found = first_unknown(&[("PATH", "/bin"), link, (name, "8080")]);
            assert_eq!(found.as_deref(), Some(name));
        }
        assert_eq!(first_unknown(&[("QUANTD_MAX_BODY_BYTES", "1024"), link]), None);
    }
}
