// Package tour takes the tour of README.md: it runs the demo on a host of its own
// (package hosts), where nobody else has the ports, and every command of the tour in
// one shell, as a reader would.
//
// A comment behind a command says what to expect, and is held to it: every HTTP status
// in one that begins with a status, and "exits 1", which else no command does. Commands
// of programs that are not installed here are left out, by name.
package tour
