package bookshop

import (
	"encoding/json"
	"net/http"
)

// answer writes a value as JSON.
func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // Who is gone does not miss it.
}

// refuse writes an RFC 9457 problem.
func refuse(w http.ResponseWriter, status int, detail string) {
	body, _ := json.Marshal(map[string]any{ // Strings and numbers: it cannot fail.
		"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail,
	})
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
