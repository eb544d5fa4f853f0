package cors_test

import (
	"fmt"
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/cors"
	"github.com/weirmesh/weir/proxy/exchange"
)

// request makes an exchange out of "METHOD Name: value; Name: value".
func request(text string) *exchange.Exchange {
	x := new(exchange.Exchange)
	method, fields, _ := strings.Cut(text, " ")
	x.Request.Method = []byte(method)
	for line := range strings.SplitSeq(fields, "; ") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			x.Request.Fields.Add([]byte(name), []byte(value))
		}
	}
	return x
}

// answer lists the status and what the answer says of the matter.
func answer(x *exchange.Exchange) string {
	var lines []string
	for i := range x.Response.Fields.Len() {
		f := x.Response.Fields.At(i)
		lines = append(lines, strings.TrimPrefix(string(f.Name), "Access-Control-")+": "+string(f.Value))
	}
	return fmt.Sprint(x.Response.Status, " ", strings.Join(lines, "; "))
}

func TestOrigins(t *testing.T) {
	for _, c := range []struct {
		allowed, sent string
		want          bool
	}{
		{"https://shop.example", "https://shop.example", true},
		{"https://shop.example", "http://shop.example", false},
		{"https://shop.example", "https://shop.example:443", true},
		{"https://shop.example", "https://shop.example:8443", false},
		{"https://shop.example:443", "https://shop.example", true},
		{"http://shop.example:80", "http://shop.example", true},
		{"https://shop.example", "https://shop.example.evil", false},
		{"https://shop.example", "https://evilshop.example", false},
		{"https://shop.example", "null", false},
		{"https://shop.example", "", false},
		{"https://*.shop.example", "https://a.shop.example", true},
		{"https://*.shop.example", "https://a.b.shop.example", true},
		{"https://*.shop.example", "https://shop.example", false},
		{"https://*.shop.example", "https://.shop.example", false},
		{"https://*.shop.example", "https://evil-shop.example", false},
		{"https://*.shop.example", "https://a.shop.example:8443", false},
		{"https://*.shop.example:8443", "https://a.shop.example:8443", true},
		{"https://*", "https://any.example", true},
		{"https://*", "https://any.example:8443", false},
		{"https://*", "http://any.example", false},
		{"http://[::1]:8080", "http://[::1]:8080", true},
		{"http://[::1]", "http://[::1]", true},
		{"*", "null", true},
		{"*", "https://any.example:1", true},
	} {
		p := cors.New(&weirv1.Cors{AllowOrigins: []string{"https://first.example", c.allowed}})
		x := request("GET Origin: " + c.sent)
		p.Stamp(x, false)
		if got := x.Response.Fields.Has("access-control-allow-origin"); got != c.want {
			t.Errorf("%s asks where %s is allowed: got %v", c.sent, c.allowed, got)
		}
	}
}

func TestPreflights(t *testing.T) {
	const ask = "OPTIONS Origin: https://a.example; Access-Control-Request-Method: PUT"
	const vary = "; Vary: Origin; Vary: Request-Method; Vary: Request-Headers"
	one := []string{"https://a.example"}
	for _, c := range []struct {
		name string
		spec *weirv1.Cors
		ask  string
		want string
	}{
		{"the safelisted methods need no word", &weirv1.Cors{AllowOrigins: one}, ask,
			"204 Max-Age: 5" + vary + "; Allow-Origin: https://a.example"},
		{"methods, headers and age", &weirv1.Cors{AllowOrigins: one, AllowMethods: []string{"GET", "PUT"}, AllowHeaders: []string{"X-A", "X-B"}, MaxAge: 600}, ask,
			"204 Allow-Methods: GET, PUT; Allow-Headers: X-A, X-B; Max-Age: 600" + vary + "; Allow-Origin: https://a.example"},
		{"all of them: what was asked for", &weirv1.Cors{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}},
			ask + "; Access-Control-Request-Headers: authorization, x-a",
			"204 Allow-Methods: PUT; Allow-Headers: authorization, x-a; Max-Age: 5" + vary + "; Allow-Origin: *"},
		{"beside credentials there is no *", &weirv1.Cors{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}, AllowCredentials: true}, ask,
			"204 Allow-Methods: PUT; Max-Age: 5" + vary + "; Allow-Origin: https://a.example; Allow-Credentials: true"},
		{"what is exposed is said with the answer", &weirv1.Cors{AllowOrigins: one, ExposeHeaders: []string{"X-C"}}, ask,
			"204 Max-Age: 5" + vary + "; Allow-Origin: https://a.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := request(c.ask)
			p := cors.New(c.spec)
			if !cors.IsPreflight(x) || !p.Preflight(x) {
				t.Fatal("it is refused")
			}
			p.Stamp(x, true)
			if got := strings.ReplaceAll(answer(x), "Vary: Access-Control-", "Vary: "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	p := cors.New(&weirv1.Cors{AllowOrigins: one})
	if p.Preflight(request("OPTIONS Origin: https://b.example; Access-Control-Request-Method: PUT")) {
		t.Error("another origin's is answered")
	}
	for _, text := range []string{"OPTIONS Origin: a", "OPTIONS Access-Control-Request-Method: PUT", "GET Origin: a; Access-Control-Request-Method: PUT"} {
		if cors.IsPreflight(request(text)) {
			t.Errorf("%s is no preflight", text)
		}
	}
}

func TestAnswers(t *testing.T) {
	one := []string{"https://a.example"}
	for _, c := range []struct {
		name string
		spec *weirv1.Cors
		ask  string
		want string
	}{
		{"an allowed origin", &weirv1.Cors{AllowOrigins: one, ExposeHeaders: []string{"X-A", "X-B"}}, "GET Origin: https://a.example",
			"200 X-A: 1; Vary: Origin; Allow-Origin: https://a.example; Expose-Headers: X-A, X-B"},
		{"another", &weirv1.Cors{AllowOrigins: one, ExposeHeaders: []string{"X-A"}}, "GET Origin: https://b.example", "200 X-A: 1; Vary: Origin"},
		{"none", &weirv1.Cors{AllowOrigins: one}, "GET ", "200 X-A: 1; Vary: Origin"},
		{"all, alike", &weirv1.Cors{AllowOrigins: []string{"*"}, ExposeHeaders: []string{"*"}}, "GET Origin: https://b.example",
			"200 X-A: 1; Allow-Origin: *; Expose-Headers: *"},
		{"all, with credentials", &weirv1.Cors{AllowOrigins: []string{"*"}, AllowCredentials: true, ExposeHeaders: []string{"*"}}, "GET Origin: https://b.example",
			"200 X-A: 1; Vary: Origin; Allow-Origin: https://b.example; Allow-Credentials: true; Expose-Headers: X-A, Vary"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := request(c.ask)
			x.Response.Status = 200
			// The service has an opinion of its own.
			for _, f := range [][2]string{{"access-control-allow-origin", "*"}, {"Access-Control-Max-Age", "1"}, {"X-A", "1"}, {"Access-Control-Allow-Methods", "DELETE"}} {
				x.Response.Fields.Add([]byte(f[0]), []byte(f[1]))
			}
			cors.New(c.spec).Stamp(x, false)
			if got := answer(x); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"null", "https://a.example:1", "https://", "://", "http://[::1]:", "https://.shop.example", "https://a.shop.example\x00"} {
		f.Add(s)
	}
	p := cors.New(&weirv1.Cors{AllowOrigins: []string{"https://*.shop.example"}, AllowCredentials: true})
	f.Fuzz(func(t *testing.T, sent string) {
		x := request("GET ")
		x.Request.Fields.Add([]byte("Origin"), []byte(sent))
		p.Stamp(x, false)
		if !x.Response.Fields.Has("access-control-allow-origin") {
			return
		}
		host, ok := strings.CutPrefix(sent, "https://")
		if !ok || !strings.HasSuffix(strings.TrimSuffix(host, ":443"), ".shop.example") {
			t.Errorf("%q is allowed", sent)
		}
	})
}
