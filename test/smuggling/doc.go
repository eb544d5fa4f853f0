// Package smuggling is what an HTTP/1.1 proxy makes of messages that could be
// read in two ways: tables of several hundred, both of requests and of answers,
// each with the section of the RFC that it is about and what must come of it.
//
//	client ─row─▶ edge ─▶ upstream that writes down every byte
//	client ◀──── edge ◀─row─ upstream
//
// # What is required
//
//   - What the edge forwards is exactly one well-formed message for each that
//     it accepted, byte for byte as the table says, or nothing. Of a message
//     whose fault lies in its body, the beginning may have been sent: it breaks
//     off, and so does its connection.
//   - Whoever asks next is answered what was asked: neither the client's nor the
//     upstream's connection is left in the middle of something.
//   - It makes no difference whether a message comes alone, behind another in
//     the same packet, or byte by byte.
//
// What is well-formed is decided by [Next], which has nothing in common with the
// proxy's codec: it is the grammar of RFC 9112 as regular expressions, and knows
// no leniency.
//
// # The tables
//
// A file holds families of rows. A family is a template with a hole, {}, and each
// row a filling of it:
//
//	== a length is digits, once
//	RFC 9110 8.6
//	> POST /x HTTP/1.1
//	> Host: a
//	> {}
//	>
//	> abc\
//	< POST /x HTTP/1.1
//	< Host: a
//	< {}
//	<
//	< abc\
//	200  | digits      | Content-Length: 3
//	200  | zeros first | Content-Length: 03 | Content-Length: 3
//	400! | a plus sign | Content-Length: +3
//
// Lines behind > are what is sent, those behind < what is passed on, if the row
// is accepted; a row's fourth column fills their hole, else its third does, and
// "-" fills it with nothing, which takes the line away. A line ends in CRLF
// unless a backslash ends it. \r \n \t \v \f \0 \s (a space) \\ and \xHH are
// escapes, {ab*3} is ababab, {close} and {reset} end the sender's side of the
// connection. A section in brackets behind a row's name is the row's own.
//
// The verdict on a request is the statuses of the answers, with an exclamation
// mark where the connection ends; "none" if it just ends. That on an answer is what the client gets, and
// whether the upstream's connection is used again: "200 kept", "200 dropped",
// "200 cut" (the answer breaks off, so that the client can tell) or "502".
package smuggling
