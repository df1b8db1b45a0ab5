//! Ports that stay ours. A port found by binding to 0 is free for anyone again the moment it is released, and comes
//! from the range the kernel also takes outgoing connections' ports from; a server that is stopped and started again
//! must find its port free. So ports are taken from below that range, and each is reserved among all test beds of the
//! machine by an abstract socket of its name, which the kernel releases with the process.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::bail;

const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

/// A TCP port on loopback, reserved as long as this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: UnixListener,
}

impl Port {
    pub fn reserve() -> anyhow::Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Processes start at different places, so that they seldom meet.
        let start = std::process::id().wrapping_mul(97);
        for _ in 0..COUNT {
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let number = FIRST + u16::try_from(start.wrapping_add(step) % u32::from(COUNT))?;
            let name = SocketAddr::from_abstract_name(format!("learning-rollout-test-port-{number}"))?;
            if let Ok(reservation) = UnixListener::bind_addr(&name)
                && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
            {
                return Ok(Self { number, _reservation: reservation });
            }
        }
        bail!("no free port among {FIRST} to {}", FIRST + (COUNT - 1))
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.number)
    }

    /// `http://127.0.0.1:PORT`
    pub fn http(&self) -> String {
        format!("http://{}", self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_though_nobody_listens() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let taken = Port::reserve().unwrap();
        let _listener = TcpListener::bind(taken.address()).unwrap();
        let name = SocketAddr::from_abstract_name(format!("learning-rollout-test-port-{}", taken.number)).unwrap();
        assert!(UnixListener::bind_addr(&name).is_err(), "the reservation holds while the port lives");
        drop(taken);
        assert!(UnixListener::bind_addr(&name).is_ok(), "and ends with it");
    }
}
