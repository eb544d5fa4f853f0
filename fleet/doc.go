// Package fleet is what servers tell one another beside the log: how each of
// them is, and which proxies are connected to it. Nothing of it is agreed on or
// kept; it is as new as the way between two servers is long.
//
//	Local ─▶ board ─▶ Handler ─ long poll, mTLS ─▶ peer ─▶ [Fleet.Reports]
//	           │                                    │
//	           ╰─────────────────┬──────────────────╯
//	                             ▼
//	                     [Fleet.Statuses]
//
// Every member asks every other one what is new since the version that it
// knows, and the other answers once there is something. The version counts the
// changes of what a member says, from a start that is drawn when its process
// begins, so that nobody takes a restarted member for the one that it knew.
//
// # Promises
//
// A change at one member is seen at the others a round trip later. Changes that
// come closer than a few milliseconds are told as one, and a member has at most
// one question under way to each other. What travels is what has changed: one
// proxy of a thousand costs what one proxy costs. Only who knows nothing of this
// process, or too little, is told everything.
//
// A member that has not been heard of for 5 s is silent: its proxies count as
// not connected until it speaks again. What it said last is kept for as long as
// it is a member.
//
// # Who may ask
//
// Servers with a certificate that is good today, looked at with each question.
// A peer is believed to be the member that it is held for by its certificate
// alone, wherever its address leads.
package fleet
