// Package hub is the domain: the words every other package speaks.
//
// It knows hosts, customers, keys and the immutable [Fleet] that holds them;
// reports, events and the states of the dead-man's switch; and [Error], the
// one error that may reach a client. It imports only the standard library,
// does no I/O and reads no clock.
package hub
