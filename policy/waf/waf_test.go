package waf_test

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestWhatIsRefused(t *testing.T) {
	for _, test := range []struct {
		name, settings, request string
		status                  int
	}{
		{"a request like any other", `{}`, "GET /books?q=go&page=2", 200},
		{"an attack in the query", `{}`, "GET /books?q=1'%20or%20'1'='1'%20--%20", 403},
		{"an attack in a form", `{}`, "POST /books\nContent-Type: application/x-www-form-urlencoded\n\nq=<script>alert(1)</script>", 403},
		{"an attack in JSON", `{}`, "POST /books\nContent-Type: application/json\n\n" + `{"book":{"title":"<script>alert(1)</script>"}}`, 403},
		{"an attack in XML", `{}`, "POST /books\nContent-Type: application/xml\n\n<a b='c'>;cat /etc/passwd</a>", 403},
		{"an attack in a header", `{}`, "GET /books\nUser-Agent: () { :;}; /bin/cat /etc/passwd", 403},
		{"an attack in the path", `{}`, "GET /books/.git/config", 403},
		{"JSON that is none", `{}`, "POST /books\nContent-Type: application/json\n\n{\"a\":", 400},
		{"methods of APIs", `{}`, "DELETE /books/1", 200},
		{"a merge patch", `{}`, "PATCH /books/1\nContent-Type: application/merge-patch+json\n\n{\"a\":1}", 200},
		{"detection alone", `{mode: "DETECT"}`, "GET /books?q=1'%20or%20'1'='1'%20--%20", 200},
		{"what is suspicious at a higher level", `{}`, "GET /books?q=a&q=b&x=%7e%7e%7e%7e%7e%7e%7e", 200},
		{"at that level", `{paranoiaLevel: 4}`, "GET /books?q=a&q=b&x=%7e%7e%7e%7e%7e%7e%7e", 403},
		{"below the threshold", `{anomalyThreshold: 1000}`, "GET /books?q=1'%20or%20'1'='1'%20--%20", 200},
		{"a rule of one's own", `{rules: "SecRule ARGS:debug \"@streq on\" \"id:10,phase:1,deny,status:418,msg:'debugging'\""}`, "GET /?debug=on", 418},
		{"a score of one's own",
			`{rules: "SecRule ARGS:debug \"@streq on\" \"id:10,phase:2,pass,msg:'debugging',setvar:'tx.inbound_anomaly_score_pl1=+%{tx.critical_anomaly_score}'\""}`,
			"GET /?debug=on", 403},
		{"a redirect of one's own", `{rules: "SecRule ARGS:old \"@streq 1\" \"id:10,phase:1,redirect:'/new',status:301\""}`, "GET /?old=1", 301},
		{"types of content that rules allow", `{rules: "SecAction \"id:10,phase:1,pass,setvar:'tx.allowed_request_content_type=|text/csv|'\""}`,
			"POST /\nContent-Type: text/csv\n\na,b", 200},
		{"and others", `{rules: "SecAction \"id:10,phase:1,pass,setvar:'tx.allowed_request_content_type=|text/csv|'\""}`,
			"POST /\nContent-Type: application/json\n\n{}", 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, settings(t, test.settings), nil)
			if got := s.ask(test.request); got.StatusCode != test.status {
				t.Errorf("answered %d %s, not %d", got.StatusCode, got.body, test.status)
			}
		})
	}
}

const injection = "GET /books?q=1'%20or%20'1'='1'%20--%20"

func TestExclusions(t *testing.T) {
	const (
		everywhere = `{exclusions: [{ruleIds: [942100], ruleRanges: [{first: 942101, last: 942999}]}]}`
		parameter  = `{exclusions: [{tags: ["attack-sqli"], parameters: ["q"]}]}`
		byID       = `{exclusions: [{ruleIds: [942100], ruleRanges: [{first: 942101, last: 942999}], parameters: ["q"]}]}`
		path       = `{exclusions: [{tags: ["attack-sqli"], paths: [{value: "/books"}]}]}`
		exact      = `{exclusions: [{tags: ["attack-sqli"], paths: [{type: "EXACT", value: "/books"}]}]}`
		expression = `{exclusions: [{tags: ["attack-sqli"], paths: [{type: "REGULAR_EXPRESSION", value: "/b[o]+ks(/\\d+)?"}]}]}`
		both       = `{exclusions: [{ruleRanges: [{first: 942000, last: 942999}], parameters: ["q"], paths: [{value: "/books"}]}]}`
		header     = `{exclusions: [{tags: ["OWASP_CRS"], headers: ["x-query"]}]}`
		cookie     = `{exclusions: [{tags: ["OWASP_CRS"], cookies: ["query"]}]}`
		json       = `{exclusions: [{tags: ["attack-xss"], parameters: ["json.a.b"]}]}`
		own        = `{rules: "SecRuleRemoveByTag attack-sqli"}`
		ownBefore  = `{rules: "SecRule REQUEST_URI \"@beginsWith /books\" \"id:10,phase:1,pass,nolog,ctl:ruleRemoveTargetByTag=attack-sqli;ARGS:q\""}`
		ownTarget  = `{rules: "SecRuleUpdateTargetByTag attack-sqli \"!ARGS:q\""}`
	)
	for _, test := range []struct {
		name, settings, request string
		status                  int
	}{
		{"none", `{}`, injection, 403},
		{"rules by number", everywhere, injection, 200},
		{"other rules stay", everywhere, "GET /?q=<script>alert(1)</script>", 403},
		{"a parameter by tag", parameter, injection, 200},
		{"another parameter", parameter, "GET /books?p=1'%20or%20'1'='1'%20--%20", 403},
		{"a parameter by number", byID, injection, 200},
		{"a path", path, injection, 200},
		{"below the path", path, "GET /books/7?q=1'%20or%20'1'='1'%20--%20", 200},
		{"beside the path", path, "GET /bookshelf?q=1'%20or%20'1'='1'%20--%20", 403},
		{"out of the path", path, "GET /books/../x?q=1'%20or%20'1'='1'%20--%20", 403},
		{"exactly the path", exact, injection, 200},
		{"not below it", exact, "GET /books/7?q=1'%20or%20'1'='1'%20--%20", 403},
		{"an expression", expression, "GET /boooks/7?q=1'%20or%20'1'='1'%20--%20", 200},
		{"it is the whole path", expression, "GET /books/x?q=1'%20or%20'1'='1'%20--%20", 403},
		{"a parameter at a path", both, injection, 200},
		{"and at another", both, "GET /x?q=1'%20or%20'1'='1'%20--%20", 403},
		{"a header", header, "GET /\nX-Query: ${jndi:ldap://x}", 200},
		{"another header", header, "GET /\nX-Other: ${jndi:ldap://x}", 403},
		{"a cookie", cookie, "GET /\nCookie: query=1'%20or%20'1'='1'%20--%20", 200},
		{"another cookie", cookie, "GET /\nCookie: other=1'%20or%20'1'='1'%20--%20", 403},
		{"a member of JSON", json, "POST /\nContent-Type: application/json\n\n" + `{"a":{"b":"<script>alert(1)</script>"}}`, 200},
		{"another member", json, "POST /\nContent-Type: application/json\n\n" + `{"a":{"c":"<script>alert(1)</script>"}}`, 403},
		{"by a directive", own, injection, 200},
		{"by a rule", ownBefore, injection, 200},
		{"by a directive for a parameter", ownTarget, injection, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, settings(t, test.settings), nil)
			if got := s.ask(test.request); got.StatusCode != test.status {
				t.Errorf("answered %d, not %d: %v", got.StatusCode, test.status, s.told(got))
			}
		})
	}
}

func TestARefusalSaysNothingOfRules(t *testing.T) {
	s := start(t, settings(t, `{}`), nil)
	got := s.ask(injection + "\nAuthorization: Bearer s3cr3t-token\nCookie: session=s3cr3t-cookie")
	if got.StatusCode != 403 || got.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("answered %d %v", got.StatusCode, got.Header)
	}
	var problem map[string]any
	if err := json.Unmarshal([]byte(got.body), &problem); err != nil {
		t.Fatal(err)
	}
	if problem["requestId"] != got.id || strings.Contains(got.body, "942") || strings.Contains(got.body, "SQL") {
		t.Errorf("the client is told %s", got.body)
	}
	l := s.told(got)
	if l.Action != "blocked" || l.Policy != "default/shield" || l.Route != "default/r" || l.Status != 403 || l.Path != "/books" || l.Client != "127.0.0.1" ||
		!l.has(942100) || !l.has(949110) || l.Score == "" || l.Level != "WARN" {
		t.Errorf("the log has %+v", l)
	}
	for _, h := range l.Rules {
		if h.Rule == 942100 && (h.Variable != "ARGS:q" || h.Message == "" || h.Severity != "critical") {
			t.Errorf("the log says of the rule %+v", h)
		}
	}
	if text := s.journal.text(); strings.Contains(text, "s3cr3t") || strings.Contains(text, "'1'='1'") {
		t.Errorf("the log has values: %s", text)
	}
	if len(s.seen) > 0 {
		t.Error("the service was asked")
	}
}
