package handler_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/handler"
)

// server serves a handler and knows a client of it.
type server struct {
	*http.Server
	url    string
	client *http.Client
	log    *bytes.Buffer
	ended  chan struct{}
}

// ours makes a server serve HTTP/2 by this package; theirs leaves it to net/http.
func ours(s *http.Server, logger *slog.Logger) { handler.Configure(s, logger) }
func theirs(*http.Server, *slog.Logger)        {}

func start(t testing.TB, configure func(*http.Server, *slog.Logger), h http.HandlerFunc) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := new(bytes.Buffer) // read once all is over
	s := &server{url: "https://" + l.Addr().String(), log: log, ended: make(chan struct{})}
	s.Server = &http.Server{
		Handler: h, TLSConfig: certified(t), ReadHeaderTimeout: time.Minute, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelInfo),
	}
	configure(s.Server, slog.New(slog.NewTextHandler(log, nil)))
	go func() {
		defer close(s.ended)
		_ = s.ServeTLS(l, "", "")
	}()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	s.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		_ = s.Close()
		transport.CloseIdleConnections()
		<-s.ended
	})
	return s
}

func certified(tb testing.TB) *tls.Config {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	tb.Cleanup(s.Close)
	return &tls.Config{Certificates: s.TLS.Certificates, MinVersion: tls.VersionTLS12}
}

// told is an answer in one text, with what differs between two runs left out.
func told(t *testing.T, response *http.Response) string {
	t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if _, err := http.ParseTime(response.Header.Get("Date")); err != nil {
		t.Errorf("the date: %v", err)
	}
	response.Header.Del("Date")
	var lines []string
	for _, section := range []http.Header{response.Header, response.Trailer} {
		var fields []string
		for name, values := range section {
			fields = append(fields, fmt.Sprintf("%s: %q", name, values))
		}
		slices.Sort(fields)
		lines = append(lines, strings.Join(fields, "; "))
	}
	if len(body) > 200 {
		body = fmt.Appendf(nil, "%d bytes, from %.10q", len(body), body)
	}
	return fmt.Sprintf("%s %s length %d\n%s\n%s\ntrailers %s", response.Proto, response.Status, response.ContentLength,
		lines[0], body, lines[1]) + fmt.Sprint("\n", err)
}

// What handlers say and find is the same with net/http's own server.
func TestHandlersAreServedAsByNetHTTP(t *testing.T) {
	get := func(path string) func(url string) *http.Request {
		return func(url string) *http.Request { return newRequest("GET", url+path, nil) }
	}
	for name, c := range map[string]struct {
		request func(url string) *http.Request
		handle  http.HandlerFunc
	}{
		"what a request is": {
			func(url string) *http.Request {
				r := newRequest("POST", url+"/a%2fb?q=1&q=2", strings.NewReader("body"))
				r.Host = "shop.example"
				r.Header = http.Header{"X-Two": {"1", "2"}, "Cookie": {"a=b"}, "User-Agent": {"test"}, "Authorization": {"Bearer x"}}
				return r
			},
			func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				_, _, addressErr := net.SplitHostPort(r.RemoteAddr)
				var header []string
				for name, values := range r.Header {
					header = append(header, fmt.Sprint(name, values))
				}
				slices.Sort(header)
				fmt.Fprintln(w, r.Method, r.Proto, r.ProtoMajor, r.Host, r.URL.Path, r.URL.RawPath, r.URL.Query()["q"], r.RequestURI,
					r.ContentLength, string(body), err, addressErr, r.TLS.NegotiatedProtocol, header, r.Context().Err())
			},
		},
		"no body": {get("/"), func(w http.ResponseWriter, r *http.Request) {
			n, err := r.Body.Read(make([]byte, 1))
			fmt.Fprint(w, r.ContentLength, n, err)
		}},
		"nothing said":        {get("/"), func(http.ResponseWriter, *http.Request) {}},
		"a status alone":      {get("/"), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418) }},
		"no content":          {get("/"), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }},
		"not modified":        {get("/"), func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Etag", `"x"`); w.WriteHeader(304) }},
		"a redirect":          {get("/"), func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/there", 404) }},
		"the type is guessed": {get("/"), func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html><p>hello") }},
		"the head counts once": {get("/"), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Before", "1")
			w.WriteHeader(201)
			w.Header().Set("X-After", "1")
			w.WriteHeader(500)
			fmt.Fprint(w, "made")
		}},
		"a long body": {get("/"), func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				_, _ = w.Write(bytes.Repeat([]byte("x"), 10_000))
			}
		}},
		"a long body with a length": {get("/"), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000000")
			for range 100 {
				_, _ = w.Write(bytes.Repeat([]byte("x"), 10_000))
			}
		}},
		"HEAD": {
			func(url string) *http.Request { return newRequest("HEAD", url, nil) },
			func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "5")
				_, err := io.WriteString(w, "hello")
				if err != nil {
					t.Error(err)
				}
			},
		},
		"trailers that were announced": {get("/"), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum, X-Other")
			fmt.Fprint(w, "body")
			w.Header().Set("X-Sum", "7")
		}},
		"trailers that were not": {get("/"), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.WriteHeader(200)
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "5")
		}},
		"trailers after a flush": {get("/"), func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "part")
			w.(http.Flusher).Flush()
			fmt.Fprint(w, "s")
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		}},
		"a request's trailers": {
			func(url string) *http.Request {
				r := newRequest("POST", url, struct{ io.Reader }{strings.NewReader("body")})
				r.Trailer = http.Header{"X-Sum": {"9"}}
				return r
			},
			func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				fmt.Fprint(w, string(body), err, r.Trailer.Get("X-Sum"))
			},
		},
		"a body that nobody reads": {
			func(url string) *http.Request {
				return newRequest("POST", url, strings.NewReader(strings.Repeat("x", 1<<20)))
			},
			func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "no, thank you") },
		},
		"a large body": {
			func(url string) *http.Request {
				return newRequest("POST", url, strings.NewReader(strings.Repeat("x", 5<<20)))
			},
			func(w http.ResponseWriter, r *http.Request) {
				n, err := io.Copy(io.Discard, r.Body)
				fmt.Fprint(w, n, err)
			},
		},
		"a body after its handler has closed it": {
			func(url string) *http.Request { return newRequest("POST", url, strings.NewReader("body")) },
			func(w http.ResponseWriter, r *http.Request) {
				_ = r.Body.Close()
				_, err := r.Body.Read(make([]byte, 1))
				fmt.Fprint(w, err != nil)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got [2]string
			for i, configure := range []func(*http.Server, *slog.Logger){ours, theirs} {
				s := start(t, configure, c.handle)
				s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
				response, err := s.client.Do(c.request(s.url))
				if err != nil {
					t.Fatal(err)
				}
				got[i] = strings.ReplaceAll(told(t, response), s.url, "URL")
			}
			if got[0] != got[1] {
				t.Errorf("got\n%s\nand from net/http\n%s", got[0], got[1])
			}
		})
	}
}

func newRequest(method, url string, body io.Reader) *http.Request {
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		panic(err)
	}
	return r
}

func TestBothDirectionsAtOnce(t *testing.T) {
	s := start(t, ours, func(w http.ResponseWriter, r *http.Request) {
		for lines := bufio.NewScanner(r.Body); lines.Scan(); {
			fmt.Fprintln(w, "heard", lines.Text())
			_ = http.NewResponseController(w).Flush()
		}
	})
	read, write := io.Pipe()
	go fmt.Fprintln(write, 1)
	response, err := s.client.Do(newRequest("POST", s.url, read))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answers := bufio.NewReader(response.Body)
	for i := 1; i <= 3; i++ {
		if i > 1 {
			fmt.Fprintln(write, i)
		}
		if line, err := answers.ReadString('\n'); err != nil || line != fmt.Sprintf("heard %d\n", i) {
			t.Errorf("%q, %v", line, err)
		}
	}
	_ = write.Close()
	if rest, err := io.ReadAll(answers); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
}

// Whoever waits for a client, or for its body, hears that it has left.
func TestAClientThatLeavesEndsTheCall(t *testing.T) {
	for name, wait := range map[string]func(*http.Request) error{
		"the context": func(r *http.Request) error { <-r.Context().Done(); return r.Context().Err() },
		"the body":    func(r *http.Request) error { _, err := io.ReadAll(r.Body); return err },
	} {
		t.Run(name, func(t *testing.T) {
			began, ended := make(chan struct{}), make(chan error, 1)
			s := start(t, ours, func(_ http.ResponseWriter, r *http.Request) {
				close(began)
				ended <- wait(r)
			})
			ctx, cancel := context.WithCancel(t.Context())
			read, _ := io.Pipe()
			go func() {
				<-began
				cancel()
			}()
			response, err := s.client.Do(newRequest("POST", s.url, read).WithContext(ctx))
			if err == nil {
				response.Body.Close()
			}
			if err := <-ended; err == nil {
				t.Error("the call has heard nothing")
			}
		})
	}
}

func TestABodyMayBeClosedWhileItIsRead(t *testing.T) {
	s := start(t, ours, func(w http.ResponseWriter, r *http.Request) {
		failed := make(chan error)
		go func() {
			_, err := r.Body.Read(make([]byte, 1))
			failed <- err
		}()
		_ = r.Body.Close()
		fmt.Fprint(w, <-failed != nil)
	})
	read, write := io.Pipe()
	defer write.Close()
	response, err := s.client.Do(newRequest("POST", s.url, read))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, _ := io.ReadAll(response.Body); string(text) != "true" {
		t.Errorf("%q", text)
	}
}

// A handler that breaks off leaves no answer that looks whole, and harms no other
// call of the connection.
func TestHandlersThatBreakOff(t *testing.T) {
	release := make(chan struct{})
	s := start(t, ours, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/abort":
			fmt.Fprint(w, strings.Repeat("x", 10_000))
			panic(http.ErrAbortHandler)
		case "/panic":
			panic("a mistake")
		case "/short":
			w.Header().Set("Content-Length", "10000")
			fmt.Fprint(w, strings.Repeat("x", 9_999))
		case "/long":
			w.Header().Set("Content-Length", "9")
			if _, err := fmt.Fprint(w, strings.Repeat("x", 10_000)); !errors.Is(err, http.ErrContentLength) {
				t.Errorf("too much was written: %v", err)
			}
		case "/other":
			<-release
			fmt.Fprint(w, "whole")
		}
	})
	other := make(chan string, 1)
	go func() {
		response, err := s.client.Get(s.url + "/other")
		if err != nil {
			other <- err.Error()
			return
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		other <- string(text)
	}()
	for _, path := range []string{"/abort", "/panic", "/short", "/long"} {
		response, err := s.client.Get(s.url + path)
		if err == nil {
			_, err = io.ReadAll(response.Body)
			response.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: the answer looks whole", path)
		}
	}
	close(release)
	if text := <-other; text != "whole" {
		t.Errorf("the other call: %q", text)
	}
	_ = s.Close()
	<-s.ended
	s.client.CloseIdleConnections()
	if n := strings.Count(s.log.String(), "panicked"); n != 1 {
		t.Errorf("%d panics were logged, want the mistake alone: %s", n, s.log)
	}
}

func TestShutdownLetsCallsEnd(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	s := start(t, ours, func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-release
		fmt.Fprint(w, "whole")
	})
	answer := make(chan string, 1)
	go func() {
		response, err := s.client.Get(s.url)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		answer <- fmt.Sprint(string(text), err)
	}()
	<-began
	shut := make(chan error, 1)
	go func() { shut <- s.Shutdown(t.Context()) }()
	<-s.ended
	close(release)
	if got := <-answer; got != "whole<nil>" {
		t.Errorf("got %q", got)
	}
	if err := <-shut; err != nil {
		t.Error(err)
	}
}

func TestCloseCutsCallsOff(t *testing.T) {
	began := make(chan struct{})
	ended := make(chan struct{})
	s := start(t, ours, func(_ http.ResponseWriter, r *http.Request) {
		defer close(ended)
		close(began)
		<-r.Context().Done()
	})
	go func() {
		<-began
		_ = s.Close()
	}()
	if response, err := s.client.Get(s.url); err == nil {
		response.Body.Close()
		t.Error("there was an answer")
	}
	<-ended
}
