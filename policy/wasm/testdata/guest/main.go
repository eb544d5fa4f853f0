package main

import (
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

var (
	config  string
	ticks   int
	total   uint32 // a counter
	told    []string
	streams = map[uint32]string{} // what x-do said
	light   uint32                // beside an action, when exchanges may be light
	current string                // what is being acted on
	lives   [2]int                // exchanges' contexts that were made and deleted
)

//go:wasmexport proxy_abi_version_0_2_1
func version() {}

//go:wasmexport proxy_on_context_create
func onContextCreate(id, root uint32) {
	if root != 0 {
		lives[0]++
	}
}

//go:wasmexport proxy_on_vm_start
func onVMStart(root, size uint32) uint32 { return 1 }

//go:wasmexport proxy_on_configure
func onConfigure(root, size uint32) uint32 {
	c, _ := buffer(7, 0, size)
	config = strings.Clone(c)
	switch what, arg, _ := strings.Cut(strings.Trim(config, `"`), " "); what {
	case "refuse":
		log(4, "the configuration is wrong: "+arg)
		return 0
	case "panic":
		panic("no configuration, no plugin")
	case "spin":
		for {
		}
	case "eat":
		var all [][]byte
		for {
			all = append(all, make([]byte, 1<<20))
		}
	case "phases":
		n, _ := strconv.Atoi(arg)
		outN = 0
		if s := foreign("weir.phases", string([]byte{byte(n)})); s != 0 {
			return 0
		}
		if outN == 1 && out()[0]&32 != 0 {
			light = 256
		}
	case "tick":
		proxySetTick(10)
	case "configure":
		act("configure", 0, 0, 0, "configure: "+arg)
	case "listen":
		for _, name := range strings.Fields(arg) {
			register(name)
		}
	case "shout":
		for range 50 {
			log(2, "hear me")
		}
	case "metrics":
		define(0, "requests")
	}
	return 1
}

func define(kind uint32, name string) (uint32, uint32) {
	var id uint32
	s := proxyDefineMetric(kind, ptr(name), uint32(len(name)), unsafe.Pointer(&id))
	total = id
	return id, s
}

//go:wasmexport proxy_on_tick
func onTick(root uint32) {
	ticks++
	key, value := "ticks", strconv.Itoa(ticks)
	proxySetShared(ptr(key), uint32(len(key)), ptr(value), uint32(len(value)), 0)
	if do, ok := strings.CutPrefix(strings.Trim(config, `"`), "tick "); ok {
		act("tick", 0, 0, 0, "tick: "+do)
	}
	if config == `"tick trap"` && ticks == 2 {
		panic("tick")
	}
}

//go:wasmexport proxy_on_request_headers
func onRequestHeaders(id, n, end uint32) uint32 {
	do, s := header(0, "x-do")
	if s != 0 {
		// The plain path: what most header policies do.
		if v, s := header(0, "x-in"); s == 0 {
			add(0, "x-out", v)
		}
		return light
	}
	do = strings.Clone(do)
	if isLight(do) {
		return act("request", id, n, end, do) | light
	}
	streams[id] = do
	return act("request", id, n, end, do)
}

// isLight: nothing is kept of such an exchange. Its commands are read again.
func isLight(do string) bool { return light != 0 && strings.HasPrefix(do, "light; ") }

// again reads the commands of a light exchange, "" if this is not one.
func again() string {
	if light == 0 {
		return ""
	}
	if do, _ := header(0, "x-do"); isLight(do) {
		return strings.Clone(do)
	}
	return ""
}

//go:wasmexport proxy_on_response_headers
func onResponseHeaders(id, n, end uint32) uint32 {
	if do, ok := streams[id]; ok {
		return act("response", id, n, end, do)
	}
	if do := again(); do != "" {
		return act("response", id, n, end, do) | light
	}
	set(2, "x-stamped", "yes")
	return light
}

//go:wasmexport proxy_on_request_body
func onRequestBody(id, size, end uint32) uint32 { return onBody("request body", id, size, end) }

//go:wasmexport proxy_on_response_body
func onResponseBody(id, size, end uint32) uint32 { return onBody("response body", id, size, end) }

func onBody(phase string, id, size, end uint32) uint32 {
	if do, ok := streams[id]; ok {
		return act(phase, id, size, end, do)
	}
	if do := again(); do != "" {
		return act(phase, id, size, end, do) | light
	}
	return light
}

//go:wasmexport proxy_on_request_trailers
func onRequestTrailers(id, n uint32) uint32 {
	v, _ := header(1, "x-trailer")
	told = append(told, "trailer "+strings.Clone(v))
	return 0
}

//go:wasmexport proxy_on_done
func onDone(id uint32) uint32 { return 1 }

//go:wasmexport proxy_on_log
func onLog(id uint32) {
	if do, ok := streams[id]; ok {
		act("log", id, 0, 0, do)
	}
}

//go:wasmexport proxy_on_delete
func onDelete(id uint32) {
	lives[1]++
	delete(streams, id)
}

// act runs the commands "phase command args; …" that are for the phase.
func act(phase string, id, n, end uint32, do string) (action uint32) {
	current = do
	for _, command := range strings.Split(do, "; ") {
		if args, ok := strings.CutPrefix(command, phase+": "); ok {
			if a := run(phase, id, n, end, strings.Split(args, " ")); a != 0 {
				action = a
			}
		}
	}
	return action
}

func run(phase string, id, n, end uint32, args []string) uint32 {
	response := strings.HasPrefix(phase, "response")
	m, body := uint32(0), uint32(0)
	if response {
		m, body = 2, 1
	}
	arg := func(i int) string {
		if i < len(args) {
			return strings.ReplaceAll(args[i], "+", " ")
		}
		return ""
	}
	number := func(i int) uint32 { n, _ := strconv.ParseUint(arg(i), 0, 32); return uint32(n) }
	show := func(what string, status uint32) { set(m, "x-"+args[0], what+" "+dec(status)) }
	switch args[0] {
	case "trap":
		*(*byte)(unsafe.Pointer(uintptr(1 << 31))) = 1
	case "panic":
		panic(arg(1))
	case "exit":
		syscall.Exit(7)
	case "spin":
		for {
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "spin-allocator":
		slow = true
		header(m, "x-do")
	case "reenter":
		reenter = true
		header(m, "x-do")
		reenter = false
		show("inside", entered)
	case "calls":
		for {
			proxyGetTime(unsafe.Pointer(&outNum))
		}
	case "pause":
		if end == 0 {
			return 1
		}
	case "pause-once":
		if n < number(1) && end == 0 {
			return 1
		}
	case "continue":
		proxyContinueStream(m / 2)
		return 1
	case "close":
		proxyCloseStream(0)
	case "reply":
		list := "\x01\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00x-reply\x00yes\x00"
		if s := reply(number(1), arg(2), list); s != 0 {
			show("refused", s)
		}
	case "add":
		show("add", add(m, arg(1), arg(2)))
	case "set":
		if s := set(m, arg(1), arg(2)); s != 0 {
			show("set", s)
		}
	case "inject":
		show("inject", add(m, arg(1), "a\r\nb: c"))
	case "remove":
		remove(m, arg(1))
	case "get":
		v, s := header(m, arg(1))
		show(v, s)
	case "foreign-get": // of the other direction
		v, s := header(2-m, arg(1))
		show(v, s)
	case "count":
		show("count", n)
	case "pairs":
		s := proxyGetPairs(m, unsafe.Pointer(&outP), unsafe.Pointer(&outN))
		show(hex(out()), s)
	case "set-pairs":
		b := unhex(arg(1))
		show("set", proxySetPairs(m, unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b))))
	case "property":
		v, s := property(strings.ReplaceAll(arg(1), "/", "\x00"))
		show(hex(v), s)
	case "set-property":
		path, value := arg(1), arg(2)
		show("set", proxySetProperty(ptr(path), uint32(len(path)), ptr(value), uint32(len(value))))
	case "show-body":
		v, s := buffer(body, number(1), number(2))
		log(2, phase+" "+v+" "+dec(s))
	case "upper":
		v, _ := buffer(body, 0, n)
		setBuffer(body, 0, n, strings.ToUpper(v))
	case "prepend":
		setBuffer(body, 0, 0, arg(1))
	case "append":
		setBuffer(body, 0xffffffff, 0, arg(1)) // behind the end
	case "grow-body":
		s := setBuffer(body, 0, n, strings.Repeat("x", int(number(1))))
		log(2, "grown "+dec(s))
	case "shared":
		shared(m, arg(1), arg(2), number(3))
	case "metric":
		metric(m)
	case "foreign":
		show("foreign", foreign(arg(1), arg(2)))
	case "edit":
		outN = 0
		s := foreign("weir.edit", string(unhex(arg(1))))
		show(hex(out()), s)
	case "use": // an edit, beside Continue
		return number(1) << 16
	case "context":
		s := proxySetContext(number(1))
		_, s2 := header(m, "x-do")
		proxySetContext(id)
		show(dec(s), s2)
	case "call-nowhere":
		show("call", proxyHTTPCall(ptr("users"), 5, nil, 0, nil, 0, nil, 0, 100, unsafe.Pointer(&outN)))
	case "call", "call-ms", "grpc":
		if s := call(id, args, phase, current); s != 0 {
			show("call", s)
		}
	case "redis-init":
		show("init", redisInit(args))
	case "redis", "redis-raw":
		if s := redis(id, args, phase, current); s != 0 {
			show("redis", s)
		}
	case "await": // MS VERSION KEY
		if s := await(id, number(1), number(2), arg(3), phase, current); s != 0 {
			show("await", s)
		}
	case "grpc-send", "grpc-end", "grpc-cancel", "grpc-close": // [TOKEN | last [MESSAGE]]
		token := lastToken
		if arg(1) != "" && arg(1) != "last" {
			token = number(1)
		}
		did, _ := header(m, "x-grpc")
		did = strings.Clone(did)
		set(m, "x-grpc", strings.TrimSpace(did+" "+args[0][len("grpc-"):]+"="+dec(ofGRPC(args[0], token, arg(2)))))
	case "map":
		_, s := header(number(1), "x-in")
		show("map", s)
	case "buffer":
		_, s := buffer(number(1), 0, 1)
		show("buffer", s)
	case "log-at":
		show("log", proxyLog(number(1), ptr("x"), 1))
	case "endpoints":
		outP, outN = nil, 0
		s := proxyGetUpstreamHosts(unsafe.Pointer(&outP), unsafe.Pointer(&outN))
		show(hex(out()), s)
	case "prefer":
		address := arg(1)
		show("prefer", proxySetUpstreamHost(ptr(address), uint32(len(address))))
	case "grpc-heard":
		set(m, "x-heard", strings.Join(heard, ","))
	case "wait":
		return number(1)
	case "go":
		proxyContinueStream(m / 2)
	case "go-stream":
		proxyContinueStream(number(1))
	case "close-stream":
		proxyCloseStream(number(1))
	case "change":
		setBuffer(number(1), 0, 0xffffffff, arg(2)+"\n")
	case "go-response":
		proxyContinueStream(1)
	case "when-ended":
		if end == 1 {
			return run(phase, id, n, end, args[1:])
		}
	case "again": // a second call, by the answer to the first
		do := current
		current = "answer: take; answer: go"
		call(id, []string{"call", "users", "/2"}, phase, current)
		current = do
	case "replace":
		setBuffer(body, 0xffffffff, 0, arg(1))
	case "take":
		set(m, "x-take", taken())
	case "queue":
		_, s := resolve(arg(1))
		show("queue", s)
	case "send":
		token, _ := resolve(arg(1))
		for range max(1, number(3)) {
			show("send", proxyEnqueue(token, ptr(arg(2)), uint32(len(arg(2)))))
		}
	case "receive":
		token, _ := resolve(arg(1))
		outP, outN = nil, 0
		s := proxyDequeue(token, unsafe.Pointer(&outP), unsafe.Pointer(&outN))
		show(out(), s)
	case "log":
		for range max(1, number(3)) {
			log(number(1), arg(2))
		}
	case "level":
		show(dec(n), proxyGetLogLevel(unsafe.Pointer(&outN)))
		show("level", outN)
	case "print":
		syscall.Write(1, []byte(arg(1)+"\n"+arg(1)))
		syscall.Write(2, []byte(arg(2)+"\n"))
	case "eat":
		var all [][]byte
		for {
			all = append(all, make([]byte, 1<<20))
		}
	case "bad":
		bad(m, number(1), number(2))
	case "keep": // a light exchange becomes an ordinary one, or the other way round
		streams[id] = strings.Join(args[1:], " ")
	case "lives":
		set(m, "x-lives", strconv.Itoa(lives[0])+" "+strconv.Itoa(lives[1]))
	case "told":
		set(m, "x-told", strings.Join(told, ","))
	}
	return 0
}

func shared(m uint32, key, value string, cas uint32) {
	outP, outN = nil, 0
	var got uint32
	s := proxyGetShared(ptr(key), uint32(len(key)), unsafe.Pointer(&outP), unsafe.Pointer(&outN), unsafe.Pointer(&got))
	was := strconv.Quote(out()) + " v" + dec(got) + " s" + dec(s)
	if cas == 7 { // the version just read
		cas = got
	}
	if value != "" {
		was += " set " + dec(proxySetShared(ptr(key), uint32(len(key)), ptr(value), uint32(len(value)), cas))
	}
	set(m, "x-shared", was)
}

func metric(m uint32) {
	c, _ := define(0, "requests")
	g, _ := define(1, "level")
	h, _ := define(2, "size")
	_, wrong := define(1, "requests")
	proxyIncrementMetric(c, 2)
	down := proxyIncrementMetric(c, ^int64(0))
	proxyRecordMetric(g, 40)
	proxyIncrementMetric(g, 2)
	proxyRecordMetric(h, 0)
	proxyRecordMetric(h, 5)
	var v uint64
	s := proxyGetMetric(g, unsafe.Pointer(&v))
	set(m, "x-metric", dec(uint32(v))+" "+dec(s)+", wrong "+dec(wrong)+", down "+dec(down)+", none "+dec(proxyIncrementMetric(99, 1)))
}

// bad calls everything with the same two numbers as pointers and lengths.
func bad(m, p, n uint32) {
	u := func(x uint32) unsafe.Pointer { return unsafe.Pointer(uintptr(x)) }
	statuses := []uint32{
		proxyLog(2, u(p), n), proxyGetLogLevel(u(p)), proxyGetTime(u(p)),
		proxyGetProperty(u(p), n, u(p), u(p)), proxySetProperty(u(p), n, u(p), n),
		proxyCallForeign(u(p), n, u(p), n, u(p), u(p)),
		proxyGetHeaderSize(m, u(p)), proxyGetPairs(m, u(p), u(p)), proxySetPairs(m, u(p), n),
		proxyGetHeader(m, u(p), n, u(p), u(p)), proxyAddHeader(m, u(p), n, u(p), n),
		proxyReplaceHeader(m, u(p), n, u(p), n), proxyRemoveHeader(m, u(p), n),
		proxyGetBufferStatus(7, u(p), u(p)), proxyGetBuffer(7, 0, n, u(p), u(p)), proxySetBuffer(0, 0, n, u(p), n),
		proxySendLocalResponse(200, u(p), n, u(p), n, u(p), n, -1),
		proxyGetShared(u(p), n, u(p), u(p), u(p)), proxySetShared(u(p), n, u(p), n, 0),
		proxyDefineMetric(0, u(p), n, u(p)),
		proxyHTTPCall(u(p), n, u(p), n, u(p), n, u(p), n, 1, u(p)), proxyGetStatus(u(p), u(p), u(p)),
		proxyGRPCCall(u(p), n, u(p), n, u(p), n, u(p), n, u(p), n, 1, u(p)),
		proxyRedisInit(u(p), n, u(p), n, u(p), n, 1), proxyRedisCall(u(p), n, u(p), n, u(p)),
		proxyGRPCStream(u(p), n, u(p), n, u(p), n, u(p), n, u(p)), proxyGRPCSend(n, u(p), n, 1),
		proxyRegisterQueue(u(p), n, u(p)), proxyResolveQueue(u(p), n, u(p), n, u(p)), proxyEnqueue(1, u(p), n), proxyDequeue(n, u(p), u(p)),
	}
	text := ""
	for _, s := range statuses {
		text += dec(s) + " "
	}
	set(m, "x-bad", strings.TrimSpace(text))
}

func dec(n uint32) string { return strconv.Itoa(int(n)) }

const digits = "0123456789abcdef"

func hex(s string) string {
	var out strings.Builder
	for i := range len(s) {
		out.WriteByte(digits[s[i]>>4])
		out.WriteByte(digits[s[i]&15])
	}
	return out.String()
}

func unhex(s string) (out []byte) {
	for i := 0; i+1 < len(s); i += 2 {
		out = append(out, byte(strings.IndexByte(digits, s[i])<<4|strings.IndexByte(digits, s[i+1])))
	}
	return out
}

func main() {}
