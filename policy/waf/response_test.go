package waf_test

import (
	"fmt"
	"net/http"
	"testing"
)

func TestAnswersAreLookedAt(t *testing.T) {
	leak := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/leak" {
			fmt.Fprint(w, "<b>Fatal error</b>: Uncaught exception in /var/www/html/a.php on line 5 <?php echo 'x'; ?>")
		}
	}
	for _, test := range []struct {
		name, settings, path string
		status               int
	}{
		{"an answer that leaks", `{inspectResponse: true}`, "/leak", 403},
		{"any other", `{inspectResponse: true}`, "/", 200},
		{"not looked at", `{}`, "/leak", 200},
		{"detection alone", `{mode: DETECT, inspectResponse: true}`, "/leak", 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, settings(t, test.settings), leak)
			if got := s.ask("GET " + test.path); got.StatusCode != test.status {
				t.Errorf("answered %d, not %d: %q", got.StatusCode, test.status, got.body)
			}
		})
	}
}
