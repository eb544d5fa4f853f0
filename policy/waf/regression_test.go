package waf_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/corazawaf/coraza-coreruleset/v4/tests"
	"go.yaml.in/yaml/v3"
)

// ftwFile is a file of the core rules' own regression tests, in go-ftw's format.
type ftwFile struct {
	Rule  int       `yaml:"rule_id"`
	Tests []ftwTest `yaml:"tests"`
}

type ftwTest struct {
	ID     int        `yaml:"test_id"`
	Stages []ftwStage `yaml:"stages"`
}

type ftwStage struct {
	Input struct {
		Method   *string           `yaml:"method"`
		URI      *string           `yaml:"uri"`
		Version  *string           `yaml:"version"`
		Headers  map[string]string `yaml:"headers"`
		Data     string            `yaml:"data"`
		Encoded  string            `yaml:"encoded_request"`
		Complete *bool             `yaml:"autocomplete_headers"`
	} `yaml:"input"`
	Output struct {
		Status      int  `yaml:"status"`
		ExpectError bool `yaml:"expect_error"`
		Log         struct {
			Expect   []int  `yaml:"expect_ids"`
			NoExpect []int  `yaml:"no_expect_ids"`
			Match    string `yaml:"match_regex"`
			NoMatch  string `yaml:"no_match_regex"`
		} `yaml:"log"`
	} `yaml:"output"`
}

// request is the stage's, byte by byte.
func (s *ftwStage) request() ([]byte, error) {
	in := &s.Input
	if in.Encoded != "" {
		return base64.StdEncoding.DecodeString(strings.ReplaceAll(in.Encoded, "\n", ""))
	}
	or := func(value *string, usual string) string {
		if value == nil {
			return usual
		}
		return *value
	}
	var b strings.Builder
	line := or(in.Method, "GET") + " " + or(in.URI, "/")
	if version := or(in.Version, "HTTP/1.1"); version != "" {
		line += " " + version
	}
	b.WriteString(line + "\r\n")
	has := map[string]bool{}
	names := make([]string, 0, len(in.Headers))
	for name := range in.Headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		has[strings.ToLower(name)] = true
		b.WriteString(name + ": " + in.Headers[name] + "\r\n")
	}
	if in.Complete == nil || *in.Complete {
		if !has["connection"] {
			b.WriteString("Connection: close\r\n")
		}
		if in.Data != "" && !has["content-type"] {
			b.WriteString("Content-Type: application/x-www-form-urlencoded\r\n")
		}
		if in.Data != "" && !has["content-length"] && !has["transfer-encoding"] {
			fmt.Fprintf(&b, "Content-Length: %d\r\n", len(in.Data))
		}
	}
	b.WriteString("\r\n" + in.Data)
	return []byte(b.String()), nil
}

// reflect is the service that the tests are written for: it answers as a request
// to /reflect wants it.
func reflect(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/reflect" {
		return
	}
	var wish struct {
		Status      int               `json:"status"`
		Headers     map[string]string `json:"headers"`
		Body        string            `json:"body"`
		EncodedBody string            `json:"encodedBody"`
		LogMessage  string            `json:"logMessage"`
	}
	if err := json.NewDecoder(r.Body).Decode(&wish); err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	for name, value := range wish.Headers {
		w.Header().Set(name, value)
	}
	if wish.Status != 0 {
		w.WriteHeader(wish.Status)
	}
	body := []byte(wish.Body)
	if wish.EncodedBody != "" {
		body, _ = base64.StdEncoding.DecodeString(wish.EncodedBody)
	}
	w.Write(body)
}

// setup is what the tests take for granted: as in the core rules' own test
// environment, with their defaults where ours differ.
const setup = `{mode: DETECT, paranoiaLevel: 4, inspectResponse: true, rules: "SecAction \"id:1,phase:1,pass,nolog,` +
	`setvar:tx.crs_validate_utf8_encoding=1,setvar:tx.arg_name_length=100,setvar:tx.arg_length=400,setvar:tx.total_arg_length=64000,` +
	`setvar:tx.max_num_args=255,setvar:tx.max_file_size=64100,setvar:tx.combined_file_sizes=65535,` +
	`setvar:'tx.allowed_methods=GET HEAD POST OPTIONS',` +
	`setvar:'tx.allowed_request_content_type=|application/x-www-form-urlencoded| |multipart/form-data| |text/xml| |application/xml| |application/soap+xml| |application/json|'\""}`

// outcome is what became of a stage.
type outcome struct {
	name   string
	stage  ftwStage
	answer answer
	err    error
}

// TestCoreRuleSetRegression sends the requests of the core rules' own regression
// tests through an edge and compares which rules matched. Under the race detector
// it takes a share of them.
func TestCoreRuleSetRegression(t *testing.T) {
	all := readRegression(t)
	if raceEnabled {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:len(all)/20]
	}
	s := start(t, settings(t, setup), reflect)
	work := make(chan *outcome)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for o := range work {
				request, err := o.stage.request()
				if o.err = err; err == nil {
					o.answer, o.err = s.exchange(request)
				}
			}
		})
	}
	for _, o := range all {
		work <- o
	}
	close(work)
	workers.Wait()
	s.Stop() // every exchange is over, and told
	judgeRegression(t, s, all)
}

func readRegression(t *testing.T) (all []*outcome) {
	files, err := fs.Glob(tests.FS, "*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	for _, name := range files {
		text, err := fs.ReadFile(tests.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		var file ftwFile
		if err := yaml.Unmarshal(text, &file); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		rule := strings.TrimSuffix(path.Base(name), ".yaml")
		for _, test := range file.Tests {
			for _, stage := range test.Stages {
				all = append(all, &outcome{name: rule + "-" + strconv.Itoa(test.ID), stage: stage})
			}
		}
	}
	return all
}

func judgeRegression(t *testing.T, s *site, all []*outcome) {
	passed, refused, excepted := 0, 0, 0
	for _, o := range all {
		problem := o.problem(s)
		why, known := exceptions[o.name]
		switch {
		case problem == "":
			passed++
		case o.refusedBefore():
			refused++
			t.Logf("%s: refused: %s", o.name, o.answer.body)
		case known:
			excepted++
			t.Logf("%s: %s (%s)", o.name, problem, why)
		default:
			t.Errorf("%s: %s", o.name, problem)
		}
	}
	t.Logf("%d stages: %d as the rules' authors say, %d refused as malformed before the rules see them, %d otherwise for a reason", len(all), passed, refused, excepted)
}

// refusedBefore: the edge takes the request for none, so there is nothing that
// the rules could say of it.
func (o *outcome) refusedBefore() bool {
	return o.err == nil && o.answer.StatusCode == 400 && (strings.Contains(o.answer.body, "problem:bad_request") || strings.Contains(o.answer.body, "problem:bad_path"))
}

// problem says what is not as the test wants it.
func (o *outcome) problem(s *site) string {
	want := o.stage.Output
	if o.err != nil {
		if want.ExpectError {
			return ""
		}
		return o.err.Error()
	}
	l, _ := s.journal.of(o.answer.id)
	var wrong []string
	for _, id := range want.Log.Expect {
		if !l.has(id) {
			wrong = append(wrong, fmt.Sprintf("rule %d did not match", id))
		}
	}
	for _, id := range want.Log.NoExpect {
		if l.has(id) {
			wrong = append(wrong, fmt.Sprintf("rule %d matched", id))
		}
	}
	if want.Status != 0 && want.Status != o.answer.StatusCode {
		wrong = append(wrong, fmt.Sprintf("answered %d, not %d", o.answer.StatusCode, want.Status))
	}
	if len(wrong) == 0 {
		return ""
	}
	var ids []int
	for _, h := range l.Rules {
		ids = append(ids, h.Rule)
	}
	return fmt.Sprintf("%s; answered %d; matched %v of %d", strings.Join(wrong, ", "), o.answer.StatusCode, ids, l.Hits)
}

// Why tests go otherwise here.
const (
	hopByHop = "the codec answers for Connection, which rules do not see"
	noTunnel = "CONNECT is answered with 501"
	version  = "a version of HTTP that there is none of is answered with 505, not 400"
	emptyEnd = "an empty Host is as none to the rules: 920280 matches, not 920290, and nothing is refused in mode DETECT"
	summary  = "RESPONSE-980 sums up what was logged, as the firewall's own line does"
	engine   = "the engine does not match what the test sends"
)

// exceptions are tests that go otherwise here, and why.
var exceptions = map[string]string{
	"920100-4": noTunnel, "920100-5": noTunnel, "920100-13": "the request is none: it is cut",
	"920100-16": "a target of a scheme and an authority alone is normalised to /",
	"920210-2":  hopByHop, "920210-3": hopByHop, "920210-4": hopByHop, "920210-6": hopByHop, "920210-7": hopByHop,
	"920280-3": version, "920430-3": version, "920430-8": version, "920430-9": version,
	"920290-1": emptyEnd, "920290-4": emptyEnd,
	"920620-1": "written for httpd, which joins fields that are there twice",
	"932311-7": engine, "942220-2": engine,
	"980170-1": summary, "980170-2": summary,
}
