// Package garden puts servers that other people wrote behind an edge: nginx,
// HAProxy, Apache, lighttpd, H2O and Tomcat, as Debian has them. Each must frame
// what it gets as the edge meant it, or request smuggling would be possible
// between the two.
//
//	client ─▶ edge ─▶ nginx, … ─▶ witness, which says what it saw
//
// # What is required
//
//   - Of every request in the tables of package smuggling that the edge passes
//     on, the server makes the same method and body, or refuses it. None makes
//     two of one.
//   - Traffic of many clients, pipelined, with bodies of each kind and size,
//     is answered one for one, each with what was asked.
//
// All but Tomcat, which answers by itself, pass the request on to a witness: so
// what they write is framed by two codecs on the way back, too.
//
// # Running
//
// go test uses the servers that are installed and skips the others; make garden
// installs them all first.
package garden
