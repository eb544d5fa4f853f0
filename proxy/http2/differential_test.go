package http2_test

import (
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is net/http's server on one connection, and what its handler was asked.
type peer struct {
	*server
	mu   sync.Mutex
	seen []string
}

// startPeer serves the far end of a connection by net/http.
func startPeer(t *testing.T) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	web := &http.Server{Protocols: protocols, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.seen = append(p.seen, r.Method+" "+strings.ToLower(r.Host)+" "+r.RequestURI)
		p.mu.Unlock()
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = web.Serve(l) }()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = client.SetDeadline(time.Now().Add(time.Minute))
	s := &server{t: t, client: client, framer: xhttp2.NewFramer(client, client)}
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	s.encoder = hpack.NewEncoder(&s.block)
	p.server = s
	t.Cleanup(func() { client.Close(); _ = web.Close(); <-served })
	return p
}

// randomHead is a request's head as clients, and those who mean ill, send them.
func randomHead(random *rand.Rand) [][2]string {
	pick := func(words ...string) string { // the first ones are what is usual
		if random.IntN(4) > 0 {
			return words[random.IntN(3)]
		}
		return words[random.IntN(len(words))]
	}
	fields := [][2]string{
		{":method", pick("GET", "GET", "DELETE", "HEAD", "OPTIONS", "PROPFIND", "G T", "", "CONNECT")},
		{":scheme", pick("http", "http", "http", "https", "")},
		{":authority", pick("shop.example", "shop.example", "SHOP.example:80", "[::1]:80", "a@b", "a/b", "")},
		{":path", pick("/", "/a?b=c", "/a%20b", "//a", "/a%zz", "*", "a", "", "/a#b", "/a b", "/\x00")},
	}
	for range random.IntN(3) {
		fields = append(fields, [2]string{
			pick("x-one", "accept", "cookie", "te", "host", "connection", "X-Upper", "transfer-encoding", "content-length", "x y", ":path", ":status", "upgrade", ""),
			pick("1", "shop.example", "0", "trailers", "a\r\nb", " a", "a\x7f", "", "chunked"),
		})
	}
	switch random.IntN(8) {
	case 0:
		random.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	case 1:
		at := random.IntN(len(fields))
		fields = append(fields[:at], fields[at+1:]...)
	}
	return fields
}

// What net/http will not serve, nor will we; and what we serve, net/http reads in
// the same way. That we refuse more is on purpose.
func TestAgainstNetHTTP(t *testing.T) {
	const seed, rounds = 20261128, 1500
	random := rand.New(rand.NewPCG(seed, 1))
	var ours *server
	var theirs *peer
	stream, accepted := uint32(1), 0
	for round := range rounds {
		if ours == nil {
			ours, theirs, stream = serveOn(t, hello, nil), startPeer(t), 1
			ours.greet()
			theirs.greet()
		}
		head := randomHead(random)
		us, them := ours.verdict(stream, head), theirs.verdict(stream, head)
		stream += 2
		switch {
		case us == "served" && them != "served":
			t.Fatalf("round %d: %q is served, but by net/http: %s", round, head, them)
		case us == "served" && !slices.Contains(head, [2]string{":path", "*"}): // which net/http answers by itself
			accepted++
			theirs.mu.Lock()
			want := theirs.seen[len(theirs.seen)-1]
			theirs.mu.Unlock()
			ours.served.mu.Lock()
			got := ours.served.requests[len(ours.served.requests)-1]
			ours.served.mu.Unlock()
			got, _, _ = strings.Cut(got, "|")
			method, rest, _ := strings.Cut(got, " ")
			host, path, _ := strings.Cut(rest, " ")
			if got := method + " " + strings.ToLower(host) + " " + path; got != want {
				t.Fatalf("round %d: %q is read as %q, by net/http as %q", round, head, got, want)
			}
		}
		if us == "gone" || them == "gone" || round%100 == 99 {
			ours.close()
			theirs.client.Close()
			ours, theirs = nil, nil
		}
	}
	if accepted < rounds/20 {
		t.Errorf("only %d of %d requests were served: the test says little", accepted, rounds)
	}
}

// verdict sends a request and says what became of it: "served", "refused", or
// "gone" where the connection has ended.
func (s *server) verdict(stream uint32, head [][2]string) string {
	if err := s.framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: stream, BlockFragment: s.head(head...), EndStream: true, EndHeaders: true}); err != nil {
		return "gone"
	}
	switch got := s.outcome(stream); {
	case strings.HasPrefix(got, "200 "):
		return "served"
	case strings.HasSuffix(got, "closed"), strings.Contains(got, "GOAWAY"):
		return "gone"
	}
	return "refused"
}
