package main

import "strings"

// Of a connection the guest keeps what the client says until a line is complete, and
// does what the line says; what the service says it makes upper-case, but for what has
// a "(wait)" in it, which it holds back.

const (
	downstream = 2 // as a buffer, and as a stream
	upstream   = 3
)

//go:wasmexport proxy_on_new_connection
func onNewConnection(id uint32) uint32 {
	do, _ := strings.CutPrefix(strings.Trim(config, `"`), "connect ")
	return line(id, do, 0)
}

//go:wasmexport proxy_on_downstream_data
func onDownstreamData(id, n, end uint32) uint32 {
	data, _ := buffer(downstream, 0, n)
	if passes("") {
		return 0
	}
	data = strings.Clone(data)
	if end == 0 && !strings.HasSuffix(data, "\n") {
		return 1
	}
	return line(id, strings.TrimSuffix(data, "\n"), n)
}

// passes: whatever it is, it is left alone, if the configuration says "pass client", or
// "pass both" ways.
func passes(what string) bool { return strings.Contains(config, "pass "+what) }

func line(id uint32, do string, n uint32) uint32 {
	word, rest, _ := strings.Cut(do, " ")
	answer := func(s string) { setBuffer(downstream, 0, n, s+"\n") }
	switch word {
	case "trap":
		setBuffer(downstream, 0, 0, "half done")
		panic("connection")
	case "spin":
		for {
		}
	case "close":
		proxyCloseStream(downstream)
	case "wait":
		return 1
	case "ask":
		if call(id, []string{"call", "users", "/who"}, "connection", rest) != 0 {
			answer("refused")
			return 0
		}
		return 1
	case "release":
		proxyContinueStream(upstream)
	case "property":
		v, s := property(strings.ReplaceAll(rest, "/", "\x00"))
		answer(v + " " + dec(s))
	case "http": // what only exchanges have
		_, s := header(0, ":path")
		_, b := buffer(0, 0, 10)
		answer(dec(s) + " " + dec(b) + " " + dec(reply(200, "", "")) + " " + dec(proxyContinueStream(0)) + " " + dec(proxyCloseStream(1)) + " " + dec(proxyCloseStream(9)))
	case "grow":
		answer(strings.Repeat("x", 3<<20))
	case "":
	default:
		setBuffer(downstream, 0, 0, "> ")
	}
	return 0
}

//go:wasmexport proxy_on_upstream_data
func onUpstreamData(id, n, end uint32) uint32 {
	data, _ := buffer(upstream, 0, n)
	if passes("both") {
		return 0
	}
	if strings.Contains(data, "(wait)") {
		return 1
	}
	if data == "trap" {
		panic("upstream")
	}
	setBuffer(upstream, 0, n, strings.ToUpper(data))
	return 0
}

var peers = []string{"nobody", "us", "its end"}

//go:wasmexport proxy_on_downstream_connection_close
func onDownstreamClose(id, peer uint32) { log(2, "the client's connection is closed by "+peers[peer]) }

//go:wasmexport proxy_on_upstream_connection_close
func onUpstreamClose(id, peer uint32) { log(2, "the service's connection is closed by "+peers[peer]) }
