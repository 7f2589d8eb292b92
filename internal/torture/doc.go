// Package torture tries to make a hub lose an acknowledged report, or count one
// twice.
//
// The hub under test is what is shipped: bin/hub and bin/hub-engine as processes
// of their own. Beside them, outside, stands the oracle: [ledger] issues the
// reports' ids and notes what was acknowledged, [agents] post as the contract
// says agents do, and at the end [stand.judge] asks ClickHouse itself, not the
// hub, what is there. Between the two the harness does harm: it kills, cuts,
// refuses, fills and damages. Each kind of harm is a [Fault], and each has its
// rounds, during which reports keep coming.
//
//	stand ─ agents ──HTTP──► hub serve ──native──► proxy ──► engine
//	  │       └─► ledger                                        │
//	  └──────── judge ◄──────────────HTTP───────────────────────┘
//
// A report that got no reply is sent again with the same bytes until it is
// acknowledged, across the hub's deaths, so in the end every issued report is
// acknowledged and must be there once. Now and then an agent hangs up before the
// reply, so that every fault also meets reports that are acknowledged twice.
//
// A fault that does not happen and a hub without traffic prove nothing: a fault
// checks that it took place, and a run whose rate fell under a floor fails.
package torture
