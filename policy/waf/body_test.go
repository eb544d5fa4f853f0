package waf_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

const attack = "<script>alert(1)</script>"

func TestBodiesReachTheServiceAsTheyCame(t *testing.T) {
	upload := "--x\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nGo\r\n--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\r\n" +
		strings.Repeat("z", 50_000) + "\r\n--x--\r\n"
	long := "a=" + strings.Repeat("b", 300_000)
	for _, test := range []struct {
		name, settings, request, body string
		length                        int64
	}{
		{"a form", `{}`, "POST /\nContent-Type: application/x-www-form-urlencoded", "a=b&c=d", 7},
		{"an upload", `{}`, "POST /\nContent-Type: multipart/form-data; boundary=x", upload, int64(len(upload))},
		{"longer than the limit", `{oversize: PARTIAL}`, "POST /\nContent-Type: application/x-www-form-urlencoded", long, int64(len(long))},
		{"an upload longer than the limit", `{oversize: PARTIAL, bodyLimit: 1000}`, "POST /\nContent-Type: multipart/form-data; boundary=x", upload, int64(len(upload))},
		{"bytes of gRPC", `{rules: "SecAction \"id:10,phase:1,pass,setvar:'tx.allowed_request_content_type=|application/grpc|'\""}`,
			"POST /\nContent-Type: application/grpc", "\x00\x00\x00\x00\x01a", 6},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, settings(t, test.settings), nil)
			if got := s.ask(test.request + "\n\n" + test.body); got.StatusCode != 200 {
				t.Fatalf("answered %d: %s", got.StatusCode, got.body)
			}
			if saw := <-s.seen; saw.body != test.body || saw.length != test.length {
				t.Errorf("the service read %d bytes, announced as %d", len(saw.body), saw.length)
			}
		})
	}
}

func TestChunkedBodiesAreHeldUntilTheyAreJudged(t *testing.T) {
	s := start(t, settings(t, `{}`), nil)
	const head = "POST /\nContent-Type: application/x-www-form-urlencoded\nTransfer-Encoding: chunked\n\n"
	if got := s.ask(head + "4\r\na=<s\r\n14\r\ncript>alert(1)</scri\r\n3\r\npt>\r\n0\r\n\r\n"); got.StatusCode != 403 || len(s.seen) > 0 {
		t.Errorf("an attack in pieces is answered %d, and the service saw %d", got.StatusCode, len(s.seen))
	}
	if got := s.ask(head + "3\r\na=b\r\n3\r\n&c=\r\n0\r\n\r\n"); got.StatusCode != 200 {
		t.Errorf("a body in pieces is answered %d: %s", got.StatusCode, got.body)
	} else if saw := <-s.seen; saw.body != "a=b&c=" {
		t.Errorf("the service read %q", saw.body)
	}
}

func TestLimits(t *testing.T) {
	form := func(n int, end string) string {
		return "POST /\nContent-Type: application/x-www-form-urlencoded\n\na=" + strings.Repeat("b", n-len(end)-2) + end
	}
	chunked := func(n int) string {
		return fmt.Sprintf("POST /\nContent-Type: application/x-www-form-urlencoded\nTransfer-Encoding: chunked\n\n%x\r\n%s\r\n0\r\n\r\n", n, strings.Repeat("b", n))
	}
	json := func(text string) string { return "POST /\nContent-Type: application/json\n\n" + text }
	const small = `{bodyLimit: 1000}`
	for _, test := range []struct {
		name, settings, request string
		status                  int
	}{
		{"as long as the limit", small, form(1000, ""), 200},
		{"an attack at the end of it", small, form(1000, "&c="+attack), 403},
		{"longer", small, form(1001, ""), 413},
		{"longer, which is not announced", small, chunked(1001), 413},
		{"longer, and its beginning is looked at", `{bodyLimit: 1000, oversize: PARTIAL}`, form(2000, ""), 200},
		{"an attack behind it", `{bodyLimit: 1000, oversize: PARTIAL}`, form(2000, "&c="+attack), 200},
		{"detection refuses none", `{mode: DETECT, bodyLimit: 1000}`, form(2000, ""), 200},
		{"too many parameters", `{}`, "POST /\nContent-Type: application/x-www-form-urlencoded\n\n" + strings.Repeat("a=b&", 2000), 400},
		{"JSON that is too deep", `{}`, json(strings.Repeat("[", 1000) + strings.Repeat("]", 1000)), 400},
		{"JSON of many members", `{}`, json("[" + strings.Repeat("1,", 5000) + "1]"), 400},
		{"XML of many elements", `{}`, "POST /\nContent-Type: application/xml\n\n<a>" + strings.Repeat("<b/>", 10_000) + "</a>", 200},
		{"multipart of many parts", `{}`, "POST /\nContent-Type: multipart/form-data; boundary=x\n\n" +
			strings.Repeat("--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n", 2000) + "--x--\r\n", 400},
		{"multipart that is cut", `{}`, "POST /\nContent-Type: multipart/form-data; boundary=x\n\n--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1", 400},
		{"a file that has two names", `{}`, "POST /\nContent-Type: multipart/form-data; boundary=x\n\n" +
			"--x\r\nContent-Disposition: form-data; name=a; filename=a.txt; filename=a.php\r\n\r\n1\r\n--x--\r\n", 400},
		{"a program's name in another form", `{}`, "POST /\nContent-Type: multipart/form-data; boundary=x\n\n" +
			"--x\r\nContent-Disposition: form-data; name=a; filename=a.txt; filename*=iso-8859-1''a.php\r\n\r\n1\r\n--x--\r\n", 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, settings(t, test.settings), nil)
			if got := s.ask(test.request); got.StatusCode != test.status {
				t.Errorf("answered %d %s, not %d", got.StatusCode, got.body, test.status)
			}
		})
	}
}

func TestNoFilesAreWritten(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	s := start(t, settings(t, `{bodyLimit: 700000}`), func(http.ResponseWriter, *http.Request) {
		if files, _ := os.ReadDir(dir); len(files) > 0 {
			t.Errorf("there is a file while an upload is under way: %v", files)
		}
	})
	upload := "--x\r\nContent-Disposition: form-data; name=f; filename=a.txt\r\n\r\n" + strings.Repeat("z", 600_000) + "\r\n--x--\r\n"
	if got := s.ask("POST /\nContent-Type: multipart/form-data; boundary=x\n\n" + upload); got.StatusCode != 200 {
		t.Errorf("answered %d: %s", got.StatusCode, got.body)
	}
}
