// Package bench measures the way of a report: how many a second, how long each
// takes, and what it costs the hub.
//
// Three processes share the machine, so that what each takes can be told apart:
// the hub's side runs in the caller's process, the agents ([Drive]) in a child,
// and the engine, where there is one, is a process of its own. The hub's side is
// made of the same parts as the hub (httpapi, ingest, spool, ship, clickhouse,
// engine); only the fleet is made up.
//
// A figure alone says little about a hub and much about a machine. So each run
// measures a bare handler of net/http too, which reads the body and replies, and
// the disk's own fsync; ratios within one run are what compares.
package bench
