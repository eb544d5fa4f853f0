package main

import (
	"strconv"
	"strings"
	"unsafe"
)

// asked is a call that was made: for which exchange, and what to do then.
type asked struct {
	id    uint32
	phase string
	do    string
}

var (
	asks      = map[uint32]asked{}
	lastToken uint32
	messages  []string // of a stream of gRPC
	heard     []string // every callback of gRPC, by its token
)

// ofGRPC does something with a call of gRPC that was made before.
func ofGRPC(what string, token uint32, message string) uint32 {
	switch what {
	case "grpc-cancel":
		return proxyGRPCCancel(token)
	case "grpc-close":
		return proxyGRPCClose(token)
	case "grpc-end":
		return proxyGRPCSend(token, ptr(message), uint32(len(message)), 1)
	}
	return proxyGRPCSend(token, ptr(message), uint32(len(message)), 0)
}

// hear notes a callback of gRPC, and does what the phase "heard NAME" says.
func hear(name string, token uint32) {
	heard = append(heard, name+" "+dec(token))
	if ask, ok := asks[token]; ok && ask.id != 0 && strings.Contains(ask.do, "heard "+name+": ") && proxySetContext(ask.id) == 0 {
		act("heard "+name, ask.id, 0, 0, ask.do)
	}
}

// call makes a call by "call SERVICE PATH [BODY]", "call-ms MS SERVICE PATH [BODY]"
// or "grpc unary|stream SERVICE METHOD MESSAGE…". What it is answered is told to the
// commands "answer: …", or "response answer: …" if it was made with the response.
func call(id uint32, args []string, phase, do string) uint32 {
	then := "answer"
	if strings.HasPrefix(phase, "response") {
		then = "response answer"
	}
	outN = 0
	var s uint32
	switch ms := 120_000; args[0] {
	case "grpc":
		s = callGRPC(args[1:])
	case "call-ms":
		ms, _ = strconv.Atoi(args[1])
		args = args[1:]
		fallthrough
	default:
		s = callHTTP(args[1], args[2], strings.Join(args[3:], " "), uint32(ms))
	}
	if s == 0 {
		lastToken = outN
		asks[outN] = asked{id, then, do}
	}
	return s
}

// await waits by weir.wait. What comes of it is told as the answer to a call is.
func await(id, ms, version uint32, key, phase, do string) uint32 {
	b := []byte{byte(ms), byte(ms >> 8), byte(ms >> 16), byte(ms >> 24), byte(version), byte(version >> 8), byte(version >> 16), byte(version >> 24)}
	outP, outN = nil, 0
	s := foreign("weir.wait", string(b)+key)
	if token := out(); s == 0 && len(token) == 4 {
		lastToken = uint32(token[0]) | uint32(token[1])<<8 | uint32(token[2])<<16 | uint32(token[3])<<24
		then := "answer"
		if strings.HasPrefix(phase, "response") {
			then = "response answer"
		}
		asks[lastToken] = asked{id, then, do}
	}
	return s
}

// redisInit is "redis-init MS SERVICE [USER] [PASSWORD]", where a dash is nothing.
func redisInit(args []string) uint32 {
	ms, _ := strconv.Atoi(args[1])
	var who [2]string
	for i, a := range args[3:] {
		if a != "-" {
			who[i] = a
		}
	}
	return proxyRedisInit(ptr(args[2]), uint32(len(args[2])), ptr(who[0]), uint32(len(who[0])), ptr(who[1]), uint32(len(who[1])), uint32(ms))
}

// redis sends "redis SERVICE COMMAND…", or "redis-raw SERVICE TEXT" as it stands; an
// underscore is a space, and | a line's end.
func redis(id uint32, args []string, phase, do string) uint32 {
	command := strings.ReplaceAll(strings.Join(args[2:], " "), "|", "\r\n")
	if args[0] == "redis" {
		command = "*" + dec(uint32(len(args)-2)) + "\r\n"
		for _, a := range args[2:] {
			a = strings.ReplaceAll(a, "_", " ")
			command += "$" + dec(uint32(len(a))) + "\r\n" + a + "\r\n"
		}
	}
	outN = 0
	s := proxyRedisCall(ptr(args[1]), uint32(len(args[1])), ptr(command), uint32(len(command)), unsafe.Pointer(&outN))
	if s == 0 {
		lastToken = outN
		then := "answer"
		if strings.HasPrefix(phase, "response") {
			then = "response answer"
		}
		asks[outN] = asked{id, then, do}
	}
	return s
}

//go:wasmexport proxy_on_redis_call_response
func onRedisCallResponse(root, token, status, size uint32) {
	answer = report{name: "redis " + dec(status), bodySize: size, buffer: 9, headersMap: 6, trailersMap: 7}
	answered(token, true)
}

func callHTTP(service, path, body string, ms uint32) uint32 {
	method := "GET"
	if body != "" {
		method = "POST"
	}
	head := pairs(":method", method, ":path", path, ":authority", "up.example", "x-from", "guest", "connection", "close")
	trailers := ""
	if body == "trailers" {
		trailers = pairs("x-after", "t")
	}
	return proxyHTTPCall(ptr(service), uint32(len(service)), ptr(head), uint32(len(head)), ptr(body), uint32(len(body)),
		ptr(trailers), uint32(len(trailers)), ms, unsafe.Pointer(&outN))
}

func callGRPC(args []string) uint32 {
	kind, service, method := args[0], args[1], args[2]
	const name = "test.Echo"
	metadata := pairs("x-from", "guest")
	if kind == "unary" {
		ms := uint32(120_000)
		if args[3] == "hang" { // which the service does, too
			ms = 500
		}
		return proxyGRPCCall(ptr(service), uint32(len(service)), ptr(name), uint32(len(name)), ptr(method), uint32(len(method)),
			ptr(metadata), uint32(len(metadata)), ptr(args[3]), uint32(len(args[3])), ms, unsafe.Pointer(&outN))
	}
	messages = nil
	s := proxyGRPCStream(ptr(service), uint32(len(service)), ptr(name), uint32(len(name)), ptr(method), uint32(len(method)),
		ptr(metadata), uint32(len(metadata)), unsafe.Pointer(&outN))
	for i, m := range args[3:] {
		if s != 0 {
			break
		}
		end := uint32(0)
		if i == len(args)-4 && m == "end" {
			s = proxyGRPCClose(outN)
			continue
		}
		s = proxyGRPCSend(outN, ptr(m), uint32(len(m)), end)
	}
	return s
}

// pairs writes a list as it travels.
func pairs(list ...string) string {
	var b []byte
	number := func(n int) { b = append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24)) }
	number(len(list) / 2)
	for _, s := range list {
		number(len(s))
	}
	for _, s := range list {
		b = append(append(b, s...), 0)
	}
	return string(b)
}

// report is what a callback was told of an answer, and where more of it is.
type report struct {
	name                        string
	headers, bodySize, trailers uint32
	headersMap, trailersMap     uint32
	buffer                      uint32
	code                        uint32
	message                     string
}

var answer report

// taken is what the answer has, in a line.
func taken() string {
	a := &answer
	status, _ := header(a.headersMap, ":status")
	status = strings.Clone(status)
	up, _ := header(a.headersMap, "x-up")
	up = strings.Clone(up)
	body, _ := buffer(a.buffer, 0, a.bodySize)
	body = strings.ReplaceAll(body, "\r\n", "|")
	body = strings.Clone(body)
	trailer, _ := header(a.trailersMap, "x-up-trailer")
	return strings.TrimSpace(a.name + " " + dec(a.headers) + "," + dec(a.bodySize) + "," + dec(a.trailers) + " " + status + " up=" + up + " body=" + body +
		" trailer=" + strings.Clone(trailer) + " code=" + dec(a.code) + " " + a.message)
}

//go:wasmexport proxy_on_http_call_response
func onHTTPCallResponse(root, token, headers, bodySize, trailers uint32) {
	answer = report{name: "http", headers: headers, bodySize: bodySize, trailers: trailers, buffer: 4, headersMap: 6, trailersMap: 7}
	answered(token, true)
}

func answered(token uint32, last bool) {
	outP, outN = nil, 0
	proxyGetStatus(unsafe.Pointer(&answer.code), unsafe.Pointer(&outP), unsafe.Pointer(&outN))
	answer.message = strings.Clone(out())
	ask, ok := asks[token]
	if !ok {
		log(3, "an answer to nothing")
		return
	}
	if last {
		delete(asks, token)
	}
	if ask.id == 0 {
		key, value := "answered", taken()
		proxySetShared(ptr(key), uint32(len(key)), ptr(value), uint32(len(value)), 0)
		return
	}
	if s := proxySetContext(ask.id); s != 0 {
		log(2, "answered without its exchange: "+taken())
		return
	}
	act(ask.phase, ask.id, 0, 0, ask.do)
}

//go:wasmexport proxy_on_grpc_receive_initial_metadata
func onGRPCInitialMetadata(root, token, n uint32) {
	v, _ := header(4, "x-up")
	messages = append(messages, "initial "+strings.Clone(v))
	hear("initial", token)
}

//go:wasmexport proxy_on_grpc_receive
func onGRPCReceive(root, token, size uint32) {
	m, _ := buffer(5, 0, size)
	if _, s := header(4, "x-none"); s == 2 {
		log(3, "no metadata")
	}
	if len(messages) > 0 { // a stream
		messages = append(messages, strings.Clone(m))
		hear("message", token)
		return
	}
	heard = append(heard, "answer "+dec(token))
	answer = report{name: "grpc", bodySize: size, buffer: 5, headersMap: 4, trailersMap: 5}
	answered(token, true)
}

//go:wasmexport proxy_on_grpc_receive_trailing_metadata
func onGRPCTrailingMetadata(root, token, n uint32) {
	v, _ := header(5, "x-up-trailer")
	messages = append(messages, "trailing "+strings.Clone(v))
	hear("trailing", token)
}

//go:wasmexport proxy_on_grpc_close
func onGRPCClose(root, token, code uint32) {
	heard = append(heard, "closed "+dec(token))
	answer = report{name: "closed " + dec(code) + " " + strings.Join(messages, ","), buffer: 5, headersMap: 4, trailersMap: 5}
	messages = nil
	answered(token, true)
}

func register(name string) (uint32, uint32) {
	var token uint32
	s := proxyRegisterQueue(ptr(name), uint32(len(name)), unsafe.Pointer(&token))
	return token, s
}

func resolve(name string) (uint32, uint32) {
	var token uint32
	s := proxyResolveQueue(nil, 0, ptr(name), uint32(len(name)), unsafe.Pointer(&token))
	return token, s
}

//go:wasmexport proxy_on_queue_ready
func onQueueReady(root, token uint32) {
	outP, outN = nil, 0
	if s := proxyDequeue(token, unsafe.Pointer(&outP), unsafe.Pointer(&outN)); s != 0 {
		log(3, "nothing in the queue: "+dec(s))
		return
	}
	log(2, "from queue "+dec(token)+": "+out())
	if out() == "trap" {
		panic("queue")
	}
}
