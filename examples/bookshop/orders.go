package bookshop

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
)

// orders is what was bought, kept while the process lives. It believes the
// header x-consumer: the edge sets it, and nobody else is let in.
type orders struct {
	mu   sync.Mutex
	last int
	// by is each consumer's orders, the newest at the end.
	by map[string][]order
}

type order struct {
	ID       string `json:"id"`
	Book     string `json:"book"`
	Quantity int    `json:"quantity"`
	// Total and Margin are in cents: what is paid, and what the shop earns.
	Total  int `json:"total"`
	Margin int `json:"margin"`
}

const (
	keptOrders    = 100 // of each consumer
	keptConsumers = 1000
	mostBooks     = 100 // in one order
)

func newOrders() *orders { return &orders{by: map[string][]order{}} }

func (o *orders) routes(mux *http.ServeMux, mesh *http.Client) {
	mux.HandleFunc("GET /orders", o.list)
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) { o.place(w, r, mesh) })
	mux.HandleFunc("GET /orders/{id}", o.show)
}

func consumer(r *http.Request) string {
	if name := r.Header.Get("X-Consumer"); name != "" {
		return name
	}
	return "anonymous"
}

func (o *orders) of(consumer string) []order {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]order{}, o.by[consumer]...)
}

func (o *orders) list(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, o.of(consumer(r)))
}

func (o *orders) show(w http.ResponseWriter, r *http.Request) {
	for _, placed := range o.of(consumer(r)) {
		if placed.ID == r.PathValue("id") {
			answer(w, http.StatusOK, placed)
			return
		}
	}
	refuse(w, http.StatusNotFound, "You have no such order.")
}

func (o *orders) place(w http.ResponseWriter, r *http.Request, mesh *http.Client) {
	const longest = 64 << 10
	var wanted struct {
		Book     string `json:"book"`
		Quantity int    `json:"quantity"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, longest)).Decode(&wanted); err != nil {
		refuse(w, http.StatusBadRequest, `Send an order as JSON, such as {"book": "1", "quantity": 2}.`)
		return
	}
	if wanted.Quantity < 1 || wanted.Quantity > mostBooks {
		refuse(w, http.StatusUnprocessableEntity, "The quantity must be between 1 and "+strconv.Itoa(mostBooks)+".")
		return
	}
	book, ok := askForBook(w, r, mesh, wanted.Book, http.StatusUnprocessableEntity)
	if !ok {
		return
	}
	placed := order{
		Book: book.ID, Quantity: wanted.Quantity,
		Total: wanted.Quantity * book.Price, Margin: wanted.Quantity * (book.Price - book.Cost),
	}
	if !o.add(consumer(r), &placed) {
		refuse(w, http.StatusServiceUnavailable, "The shop is full.")
		return
	}
	w.Header().Set("Location", "/orders/"+placed.ID)
	answer(w, http.StatusCreated, placed)
}

// add numbers an order and keeps it; false when there are too many consumers.
func (o *orders) add(consumer string, placed *order) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	theirs, known := o.by[consumer]
	if !known && len(o.by) == keptConsumers {
		return false
	}
	o.last++
	placed.ID = strconv.Itoa(o.last)
	if len(theirs) == keptOrders {
		theirs = theirs[1:]
	}
	o.by[consumer] = append(theirs, *placed)
	return true
}
