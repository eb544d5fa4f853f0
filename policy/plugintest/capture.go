package plugintest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// maxCapture bounds a capture, maxEntries the exchanges in it.
const (
	maxCapture = 256 << 20
	maxEntries = 100_000
)

// capture is what is read of a HAR document, version 1.2. Times are RFC 3339.
type capture struct {
	Log *struct {
		Entries []entry `json:"entries"`
	} `json:"log"`
}

type entry struct {
	Started  time.Time `json:"startedDateTime"`
	Client   string    `json:"_clientAddress"` // of some proxies; browsers do not say
	Request  captured  `json:"request"`
	Response captured  `json:"response"`
}

type captured struct {
	Method   string    `json:"method"`
	URL      string    `json:"url"`
	Status   int       `json:"status"`
	Headers  []harPair `json:"headers"`
	PostData *harBody  `json:"postData"`
	Content  *harBody  `json:"content"`
}

type harPair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type harBody struct {
	Text     string `json:"text"`
	Encoding string `json:"encoding"`
}

// ParseCapture reads the exchanges of a HAR document, as browsers' developer tools
// and proxies save them, in its order. Those that got no answer are left out, and
// counted. Bodies are what the document has: without Content-Encoding, and none
// where it leaves them out.
func ParseCapture(file string, data []byte) (cases []Case, unanswered int, err error) {
	if len(data) > maxCapture {
		return nil, 0, fmt.Errorf("read capture: %s is longer than %d MiB", file, maxCapture>>20)
	}
	var c capture
	if err := json.Unmarshal(bytes.TrimPrefix(data, []byte("\uFEFF")), &c); err != nil {
		return nil, 0, fmt.Errorf("read capture: %s: not a HAR document: %w", file, err)
	}
	if c.Log == nil {
		return nil, 0, fmt.Errorf("read capture: %s: not a HAR document: it has no log", file)
	}
	if len(c.Log.Entries) > maxEntries {
		return nil, 0, fmt.Errorf("read capture: %s has %d entries, more than %d", file, len(c.Log.Entries), maxEntries)
	}
	for i := range c.Log.Entries {
		e := &c.Log.Entries[i]
		if e.Response.Status == 0 {
			unanswered++
			continue
		}
		one, err := e.asCase()
		if err != nil {
			return nil, 0, fmt.Errorf("read capture: %s: log.entries[%d]: %w", file, i, err)
		}
		one.File, one.Line = file, i
		cases = append(cases, one)
	}
	if len(cases) == 0 {
		return nil, 0, fmt.Errorf("read capture: %s has no exchange with an answer", file)
	}
	return cases, unanswered, nil
}

func (e *entry) asCase() (Case, error) {
	c := Case{Time: e.Started, Repeat: 1, Client: defaultClient}
	if c.Time.IsZero() {
		c.Time = defaultTime
	}
	if a, err := netip.ParseAddr(e.Client); err == nil {
		c.Client = netip.AddrPortFrom(a, c.Client.Port())
	}
	u, err := url.Parse(e.Request.URL)
	switch {
	case err != nil:
		return c, fmt.Errorf("request.url: %w", err)
	case u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return c, fmt.Errorf("request.url: %q is not http:// or https:// and a host", e.Request.URL)
	case e.Request.Method == "":
		return c, errors.New("request.method is missing")
	case e.Response.Status < 200 || e.Response.Status > 599:
		return c, fmt.Errorf("response.status: %d is not between 200 and 599", e.Response.Status)
	}
	c.Request = Message{Method: e.Request.Method, Scheme: u.Scheme, Host: u.Host, Path: u.RequestURI()}
	c.Response = Message{Status: e.Response.Status}
	c.Name = c.Request.Method + " " + c.Request.Path
	if err := c.Request.capture(e.Request.Headers, e.Request.PostData); err != nil {
		return c, fmt.Errorf("request.%w", err)
	}
	if err := c.Response.capture(e.Response.Headers, e.Response.Content); err != nil {
		return c, fmt.Errorf("response.%w", err)
	}
	return c, nil
}

// capture takes over a head and a body. What frames the one or encodes the other
// was true on the wire, not here.
func (m *Message) capture(headers []harPair, body *harBody) error {
	for _, h := range headers {
		name := strings.ToLower(h.Name)
		switch name {
		case "host", "connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "upgrade", "te", "trailer":
			continue
		}
		if name == "" || name[0] == ':' { // as some tools write the pseudo-fields of HTTP/2
			continue
		}
		m.Fields = append(m.Fields, Field{name, h.Value})
	}
	if body == nil || body.Text == "" {
		return nil
	}
	text := body.Text
	switch body.Encoding {
	case "":
	case "base64":
		plain, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return fmt.Errorf("body: not base64: %w", err)
		}
		text = string(plain)
	default:
		return fmt.Errorf("body: unknown encoding %q", body.Encoding)
	}
	m.Chunks = []string{text}
	return nil
}
