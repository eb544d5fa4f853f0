package node

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	neturl "net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/weirmesh/weir/examples/bookshop"
	"github.com/weirmesh/weir/examples/plugins"
)

// The demo serves what its hints promise, with its three policies at work.
func TestDemo(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("compiling three modules takes seconds, and a minute with the race detector")
	}
	if _, err := plugins.Module(demoPlugins[0]); errors.Is(err, plugins.ErrNotBuilt) {
		t.Skip(err)
	}
	const shop = "127.0.0.1:8080" // as bookshop.yaml says
	addresses := []string{shop, demoSidecarAdmin}
	for _, i := range bookshop.Instances() {
		addresses = append(addresses, i.Address, i.Inbound, i.Outbound)
	}
	for _, address := range addresses {
		if l, err := net.Listen("tcp", address); err != nil {
			t.Skipf("a port of the demo's own is taken: %v", err)
		} else if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var hints bytes.Buffer
	cfg := devConfig(t, t.TempDir(), "")
	cfg.Demo, cfg.Hints = true, &hints
	process := run(t, cfg).ready()

	if status, body := ask(t, "http://"+shop+"/books", ""); status != 200 || strings.Contains(body, "margin") || !strings.Contains(body, `"currency":"EUR"`) {
		t.Errorf("books: %d %s", status, body)
	}
	if status, _ := ask(t, "http://"+shop+"/orders", ""); status != 401 {
		t.Errorf("orders without a key: %d", status)
	}
	seen := twelve(t, "http://"+shop+"/orders", "demo-key")
	if seen[429] == 0 { // the minute turned in between
		seen = twelve(t, "http://"+shop+"/orders", "demo-key")
	}
	if seen[200]+seen[429] != 12 || seen[429] < 2 {
		t.Errorf("twelve orders with a key: %v, want at most ten served and the others refused", seen)
	}
	api := dial(t, "http://"+cfg.Server.Admin, "", nil)
	partners := map[string]string{"demo": shop}
	if status, _ := ask(t, "http://"+shop+"/partners/v1/books", ""); status != 401 {
		t.Errorf("a partner without a key: %d", status)
	}
	key := createKey(t, api).GetKey()
	requireSoon(t, partners, "/partners/v1/books/1", key, 200)
	if status, body := ask(t, "http://"+shop+"/partners/v1/books/one", key); status != 400 || !strings.Contains(body, `"rule":"pattern"`) {
		t.Errorf("what the contract has not: %d %s", status, body)
	}
	seen = twelve(t, "http://"+shop+"/partners/v1/books", key)
	if seen[429] == 0 { // the minute turned in between
		seen = twelve(t, "http://"+shop+"/partners/v1/books", key)
	}
	if seen[200]+seen[429] != 12 || seen[429] < 2 {
		t.Errorf("twelve calls of a partner: %v, want at most ten served and the others refused", seen)
	}
	requireDemoMesh(t)
	for _, want := range []string{"weir key create --app demo", "curl -i http://" + shop + "/books", "WEIR_ADMIN=" + cfg.Server.Admin + " weir status"} {
		if !strings.Contains(hints.String(), want) {
			t.Errorf("the hints do not say %q:\n%s", want, hints.String())
		}
	}
	process.stop()
	run(t, cfg).ready() // and again, over what is there
}

// requireDemoMesh: the services reach each other by their sidecars, over HTTP/3, and
// one may not call another.
func requireDemoMesh(t *testing.T) {
	t.Helper()
	const asOrders, asReviews = "127.0.0.1:9205", "127.0.0.1:9203" // as the hints say
	proxied := func(by, url string) (int, string) {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyURL(&neturl.URL{Scheme: "http", Host: by})}}
		return askBy(t, client, url, "")
	}
	if status, body := ask(t, "http://127.0.0.1:8080/reviews/1", ""); status != 200 {
		t.Errorf("reviews, which ask books: %d %s", status, body)
	}
	if status, body := proxied(asOrders, "http://books.mesh/books/1"); status != 200 || !strings.Contains(body, `"cost"`) {
		t.Errorf("orders asks books: %d %s", status, body)
	}
	if status, body := proxied(asReviews, "http://orders.mesh/orders"); status != 403 || !strings.Contains(body, "access_denied") {
		t.Errorf("reviews asks orders: %d %s", status, body)
	}
	if _, page := ask(t, "http://"+demoSidecarAdmin+"/metrics", ""); !regexp.MustCompile(`weir_upstream_requests_total\{code="200",protocol="h3",service="default/books"\} [1-9]`).MatchString(page) {
		t.Errorf("orders did not call books over HTTP/3:\n%s", page)
	}
}

func twelve(t *testing.T, url, key string) map[int]int {
	seen := map[int]int{}
	for range 12 {
		status, _ := ask(t, url, key)
		seen[status]++
	}
	return seen
}

func ask(t *testing.T, url, key string) (status int, body string) {
	t.Helper()
	return askBy(t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, url, key)
}

func askBy(t *testing.T, client *http.Client, url, key string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		request.Header.Set("x-api-key", key)
	}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(data)
}
