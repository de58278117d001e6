%%% The source: one process on a node numbers the events of all its hosts, keeps
%%% them until they are acknowledged and speaks with the component.
-module(mod_event_feed_source).

-behaviour(gen_server).

-export([ensure_started/1, stop/0, host_up/1, host_down/1, reload/1,
	 session_ended/2, session_reported/2, component_connected/2, control/5]).
-export([start_link/1, init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2,
	 format_status/1]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_event_feed.hrl").

%% Milliseconds between looks at what nothing announces.
-define(TICK, 1000).
%% Ticks after which an unanswered hello is repeated from the next host: until each
%% host has said it, and from then on.
-define(FIRST_ROUND, 2).
-define(LATER_ROUNDS, 10).
%% Ticks between two notes of what was counted.
-define(NOTE_TICKS, 60).
%% Events sent in one go, and the milliseconds of pause after them, for the users.
%% 16 000 events a second are more than the server can make.
-define(SLICE, 64).
-define(PAUSE, 4).
%% Milliseconds that sessions which were there before this process have to
%% report themselves before a snapshot does without them.
-define(REPORTS, 5000).

-record(state, {component :: jid(),
		source :: binary(),
		epoch :: binary(),
		previous = none :: none | binary(),
		window :: pos_integer(),
		host :: binary(),               % that has said the last hello, or was answered
		counters :: atomics:atomics_ref(),
		ring :: mod_event_feed_ring:ring(),
		conn = none :: none | {pid(), reference()},
		resumed = false :: boolean(),   % by this connection
		%% The token of the last resume of this connection, as attributes.
		token = [] :: [{binary(), binary()}],
		ticks = 0 :: non_neg_integer(),
		greeted = 0 :: non_neg_integer(),    % the tick of the last hello
		unanswered = 0 :: non_neg_integer(), % hellos
		said = 1 :: pos_integer(),      % the oldest number according to the last hello
		%% The epoch was taken back from disk, and no resume has come since.
		restored = false :: boolean(),
		on_wire = mod_event_feed_window:new(0) :: mod_event_feed_window:window(),
		pumping = false :: boolean(),
		sessions :: mod_event_feed_sessions:sessions(),
		unreported = #{} :: #{pid() => true},
		snapshot = none :: none | {waiting, binary()} |
				   {running, binary(), mod_event_feed_sessions:cursor(), non_neg_integer()}}).

%%% For the hooks

-spec ensure_started(map()) -> ok | {error, term()}.
ensure_started(Opts) ->
    Spec = #{id => ?MODULE, start => {?MODULE, start_link, [Opts]},
	     restart => transient, shutdown => timer:minutes(1),
	     type => worker, modules => [?MODULE]},
    case supervisor:start_child(ejabberd_gen_mod_sup, Spec) of
	{ok, _} -> ok;
	{error, {already_started, _}} -> ok;
	{error, _} = Err -> Err
    end.

%% stop keeps what has not been acknowledged for the next start.
-spec stop() -> ok.
stop() ->
    _ = supervisor:terminate_child(ejabberd_gen_mod_sup, ?MODULE),
    _ = supervisor:delete_child(ejabberd_gen_mod_sup, ?MODULE),
    mod_event_feed_intake:close().

-spec host_up(binary()) -> ok.
host_up(Host) -> gen_server:cast(?MODULE, {host_up, Host}).

-spec host_down(binary()) -> ok.
host_down(_Host) -> gen_server:cast(?MODULE, hosts_changed).

-spec reload(map()) -> ok.
reload(Opts) -> gen_server:cast(?MODULE, {reload, Opts}).

%% session_ended tells that the process of a session ends. Whether the session
%% ends with it, or another has taken its place, only the source knows.
-spec session_ended({ljid(), pid()}, #fact{}) -> ok.
session_ended(Session, End) -> gen_server:cast(?MODULE, {ended, Session, End}).

%% session_reported tells of a session that was there before the source, with
%% its presence if it is available.
-spec session_reported({ljid(), pid()}, #fact{}) -> ok.
session_reported(Session, Fact) -> gen_server:cast(?MODULE, {reported, Session, Fact}).

%% component_connected tells all nodes that a component is attached.
-spec component_connected(binary(), pid()) -> ok.
component_connected(Component, Pid) ->
    case mod_event_feed_intake:belongs_to(Component) of
	true -> to_all_nodes({connected, Pid});
	false -> ok
    end.

%% control hands over what the component has sent over its own session, here or
%% on another node of the cluster.
-spec control(pid(), binary(), binary() | undefined, binary() | undefined, map()) -> ok.
control(Pid, Verb, Source, Epoch, Args) ->
    to_all_nodes({control, Pid, Verb, Source, Epoch, Args}).

to_all_nodes(Message) ->
    abcast = gen_server:abcast(ejabberd_cluster:get_nodes(), ?MODULE, Message),
    ok.

%%% gen_server

start_link(Opts) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, Opts, []).

init(#{component := Component, source := Source, window := Window,
       buffer_events := MaxEvents, buffer_bytes := MaxBytes}) ->
    process_flag(trap_exit, true),
    process_flag(message_queue_data, off_heap),
    Counters = mod_event_feed_intake:open(Component, MaxEvents, MaxBytes),
    State = #state{component = jid:make(Component), source = Source, epoch = <<>>, window = Window,
		   host = hd(mod_event_feed:hosts()), counters = Counters,
		   ring = mod_event_feed_ring:new(MaxEvents, MaxBytes),
		   sessions = mod_event_feed_sessions:new()},
    erlang:send_after(?TICK, self(), tick),
    {ok, find_connection(lists:foldl(fun ask_sessions/2, restore(State, MaxEvents, MaxBytes),
				     mod_event_feed:hosts()))}.

%% restore goes on where a clean stop has left off.
restore(#state{source = Source} = State, MaxEvents, MaxBytes) ->
    case mod_event_feed_spool:begin_epoch(Source) of
	{new, Epoch, Previous} ->
	    State#state{epoch = Epoch, previous = Previous};
	{continued, #{epoch := Epoch, previous := Previous, next := Next, holes := Holes,
		      events := Events, sessions := Sessions}} ->
	    Ring = mod_event_feed_ring:load(Events, Next, Holes, MaxEvents, MaxBytes),
	    append_all(mod_event_feed_sessions:restore(Sessions, State#state.sessions),
		       State#state{epoch = Epoch, previous = Previous, ring = Ring, restored = true,
				   on_wire = mod_event_feed_window:new(Next - 1)})
    end.

handle_call(_Request, _From, State) ->
    {noreply, State}.

handle_cast({fact, Size, Fact}, #state{counters = Counters} = State) ->
    mod_event_feed_intake:taken(Size, Counters),
    {noreply, happened(Fact, fun append/2, take_losses(State))};
handle_cast({lost, Size, Fact}, #state{counters = Counters} = State) ->
    mod_event_feed_intake:taken(Size, Counters),
    {noreply, happened(Fact, fun(_, S) -> lose(1, S) end, take_losses(State))};
handle_cast({ended, {LJID, Pid}, End}, #state{unreported = Unreported} = State) ->
    Events = mod_event_feed_sessions:ended(LJID, Pid, End, State#state.sessions),
    State1 = State#state{unreported = maps:remove(Pid, Unreported)},
    {noreply, begin_snapshot(append_all(Events, State1))};
handle_cast({reported, {LJID, Pid}, Fact}, #state{unreported = Unreported} = State) ->
    mod_event_feed_sessions:reported(LJID, Pid, Fact, State#state.sessions),
    {noreply, begin_snapshot(State#state{unreported = maps:remove(Pid, Unreported)})};
handle_cast({connected, Pid}, State) ->
    {noreply, connect(Pid, State)};
handle_cast({control, Pid, Verb, Source, Epoch, Args}, State) ->
    {noreply, obey(Pid, Verb, Source, Epoch, Args, State)};
handle_cast({host_up, Host}, State) ->
    {noreply, hello(ask_sessions(Host, State))};
handle_cast(hosts_changed, State) ->
    {noreply, hello(State)};
handle_cast({reload, Opts}, State) ->
    {noreply, reconfigure(Opts, State)};
handle_cast(_Unknown, State) -> % of a part that was not upgraded
    {noreply, State}.

handle_info(pump, State) ->
    {noreply, pump(State#state{pumping = false})};
handle_info(tick, #state{ticks = Ticks} = State) ->
    erlang:send_after(?TICK, self(), tick),
    State1 = pump(take_losses(State#state{ticks = Ticks + 1})),
    note_counts(State1),
    case State1 of
	#state{resumed = true} -> {noreply, State1};
	#state{conn = none} -> {noreply, find_connection(State1)};
	_ -> {noreply, hello_again(State1)}
    end;
handle_info({{gone, LJID}, _, process, Pid, _}, State) ->
    Events = mod_event_feed_sessions:gone(LJID, Pid, State#state.sessions),
    State1 = State#state{unreported = maps:remove(Pid, State#state.unreported)},
    {noreply, begin_snapshot(append_all(Events, State1))};
handle_info({'DOWN', Ref, process, Pid, _}, #state{conn = {Pid, Ref}} = State) ->
    {noreply, find_connection(State#state{conn = none, resumed = false})};
handle_info(reports_due, State) ->
    {noreply, begin_snapshot(State#state{unreported = #{}})};
handle_info(_Unknown, State) ->
    {noreply, State}.

terminate(Reason, State)
  when Reason == normal; Reason == shutdown; element(1, Reason) == shutdown ->
    State1 = append_all(mod_event_feed_sessions:leave(State#state.sessions),
			take_losses(State#state{resumed = false})),
    #state{source = Source, epoch = Epoch, previous = Previous, ring = Ring} = finish_snapshot(State1),
    _ = mod_event_feed_spool:save(
	  #{source => Source, epoch => Epoch, previous => Previous,
	    next => mod_event_feed_ring:next(Ring), holes => mod_event_feed_ring:holes(Ring),
	    events => mod_event_feed_ring:to_list(Ring),
	    sessions => mod_event_feed_sessions:save(State#state.sessions)}),
    ok;
terminate(_Reason, _State) ->
    ok.

%% A crash must not write into the log what users say.
format_status(Status) ->
    maps:map(fun(Key, _) when Key == message; Key == state -> hidden;
		(log, _) -> [];
		(_, Value) -> Value
	     end, Status).

%% A new name of the source needs a restart of the server.
reconfigure(#{component := Component, window := Window, buffer_events := MaxEvents,
	      buffer_bytes := MaxBytes}, #state{ring = Ring} = State) ->
    mod_event_feed_intake:limits(Component, MaxEvents, MaxBytes),
    State1 = State#state{window = Window,
			 ring = mod_event_feed_ring:limits(MaxEvents, MaxBytes, Ring)},
    find_connection(disconnect(State1#state{component = jid:make(Component)})).

%%% Events

happened(#fact{session = Change} = Fact, Append, #state{sessions = Sessions} = State) ->
    {Before, Counts} = mod_event_feed_sessions:change(Change, Fact, Sessions),
    State1 = append_all(Before, State),
    case Counts of
	true -> Append(Fact, State1);
	false -> State1
    end.

append_all(Facts, State) ->
    lists:foldl(fun append/2, State, Facts).

append(Fact, State) ->
    pump(keep(Fact, State)).

keep(Fact, #state{ring = Ring} = State) ->
    State#state{ring = mod_event_feed_ring:append(mod_event_feed_wire:kept(Fact), Ring)}.

lose(N, #state{ring = Ring} = State) ->
    State#state{ring = mod_event_feed_ring:lose(N, Ring)}.

%% take_losses numbers the events that had to be dropped before they came here.
take_losses(#state{counters = Counters} = State) ->
    case mod_event_feed_intake:losses(Counters) of
	0 ->
	    State;
	N ->
	    ?WARNING_MSG("The event feed could not keep up: ~B events are lost", [N]),
	    lose(N, State)
    end.

%% note_counts writes at most once a minute, whatever strangers and owners of rooms do.
note_counts(#state{ticks = Ticks, counters = Counters}) when Ticks rem ?NOTE_TICKS == 0 ->
    #{ignored := Ignored, unnamed := Unnamed} = mod_event_feed_intake:counted(Counters),
    _ = [?INFO_MSG("Ignored ~B messages that asked for something in the component's name", [Ignored])
	 || Ignored > 0],
    _ = [?WARNING_MSG("~B members of rooms were not named in the events of messages that they have missed: "
		      "the lists were too long", [Unnamed]) || Unnamed > 0],
    ok;
note_counts(_State) ->
    ok.

%%% To the component

%% pump sends what waits, in slices.
pump(#state{pumping = true} = State) -> State;
pump(State) -> pump(?SLICE, State).

pump(0, State) ->
    erlang:send_after(?PAUSE, self(), pump),
    State#state{pumping = true};
pump(N, #state{resumed = true, window = Size, on_wire = OnWire, ring = Ring} = State) ->
    Next = mod_event_feed_window:next(OnWire),
    case mod_event_feed_window:is_open(Size, OnWire) andalso mod_event_feed_ring:at(Next, Ring) of
	false -> State;
	none -> snapshot_slice(State);
	{lost, To} -> pump(N - 1, send_lost(Next, To, State));
	#kept{} = Kept -> pump(N - 1, send_event(Kept, State))
    end;
pump(_N, State) ->
    State.

send_event(#kept{seq = Seq} = Kept, #state{component = Component, source = Source, epoch = Epoch,
					   on_wire = OnWire} = State) ->
    Suspect = mod_event_feed_window:is_suspect(Seq, OnWire),
    send(mod_event_feed_wire:event(Component, Source, Epoch, State#state.token, Kept, Suspect), State),
    State#state{on_wire = mod_event_feed_window:sent(Seq, OnWire)}.

send_lost(From, To, #state{host = Host, component = Component, source = Source, epoch = Epoch,
			   on_wire = OnWire} = State) ->
    send(mod_event_feed_wire:lost(Host, Component, Source, Epoch, State#state.token, From, To), State),
    State#state{on_wire = mod_event_feed_window:lost(From, To, OnWire)}.

send(Message, #state{conn = {Pid, _}}) ->
    mod_event_feed_wire:send(Pid, Message).

hello(#state{conn = none} = State) ->
    State;
hello(#state{ring = Ring, host = Last, unanswered = Unanswered} = State) ->
    case mod_event_feed:all_hosts() of
	[] ->
	    State;
	[Other | _] = Hosts ->
	    Host = case lists:member(Last, Hosts) of
		       true -> Last;
		       false -> Other
		   end,
	    First = mod_event_feed_ring:first(Ring),
	    send(mod_event_feed_wire:hello(
		   Host, Hosts, State#state.component,
		   #{source => State#state.source, epoch => State#state.epoch,
		     previous => State#state.previous, first => First,
		     next => mod_event_feed_ring:next(Ring)}), State),
	    State#state{resumed = false, greeted = State#state.ticks, said = First, host = Host,
			unanswered = Unanswered + 1}
    end.

%% hello_again repeats hello from the next host: the component may not serve the
%% last one.
hello_again(#state{ticks = Ticks, greeted = Greeted, host = Host, unanswered = Unanswered} = State) ->
    Hosts = mod_event_feed:all_hosts(),
    Pause = case Unanswered < length(Hosts) of
		true -> ?FIRST_ROUND;
		false -> ?LATER_ROUNDS
	    end,
    Next = case lists:dropwhile(fun(H) -> H /= Host end, Hosts) of
	       [Host, H | _] -> H;
	       _ -> hd(Hosts ++ [Host])
	   end,
    if Ticks - Greeted >= Pause -> hello(State#state{host = Next});
       true -> State
    end.

%%% The connection

connect(Pid, #state{conn = {Pid, _}} = State) ->
    hello(State);
connect(Pid, State) ->
    State1 = disconnect(State),
    OnWire = mod_event_feed_window:cut(State1#state.on_wire),
    hello(State1#state{conn = {Pid, erlang:monitor(process, Pid)}, on_wire = OnWire, unanswered = 0}).

disconnect(#state{conn = none} = State) ->
    State;
disconnect(#state{conn = {_, Ref}} = State) ->
    erlang:demonitor(Ref, [flush]),
    State#state{conn = none, resumed = false}.

%% find_connection is for a source that starts while the component is attached.
find_connection(#state{component = #jid{lserver = Component}} = State) ->
    lists:foldl(fun connect/2, State, lists:sublist(mod_event_feed_wire:connections(Component), 1)).

%%% From the component

%% Only the connection that heard the last hello is obeyed; in a cluster the
%% others' sources come by here too.
obey(Pid, Verb, Source, Epoch, Args, #state{source = Source, conn = {Pid, _}} = State) ->
    case obey(Verb, Epoch == State#state.epoch, Args, State) of
	ignore ->
	    mod_event_feed_intake:count_ignored(),
	    State;
	State1 ->
	    State1
    end;
obey(_Pid, _Verb, Source, _Epoch, _Args, #state{source = Mine} = State) ->
    _ = [mod_event_feed_intake:count_ignored()
	 || Source == Mine orelse length(ejabberd_cluster:get_nodes()) == 1],
    State.

obey(<<"resume">>, _, #{seq := invalid}, _State) ->
    ignore;
obey(<<"resume">>, true, #{seq := Seq} = Args, #state{on_wire = OnWire} = State) ->
    case mod_event_feed_window:is_past(Seq, OnWire) of
	true -> resume(Seq, Args, State);
	false -> set_back(State)
    end;
obey(<<"resume">>, _, _, #state{restored = true, said = First} = State) when First > 1 ->
    set_back(State);
obey(<<"resume">>, _, Args, #state{said = First} = State) ->
    %% What was dropped since the hello is announced.
    resume(First - 1, Args, State);
obey(<<"ack">>, true, #{seq := Seq}, #state{on_wire = OnWire} = State) when is_integer(Seq) ->
    case mod_event_feed_window:is_past(Seq, OnWire) of
	true -> acknowledged(Seq, State);
	false -> ignore
    end;
obey(<<"snapshot">>, _, #{id := Id}, State) when is_binary(Id) ->
    begin_snapshot(State#state{snapshot = {waiting, Id}});
obey(_, _, _, _) ->
    ignore.

%% acknowledged passes over an ack that a hello or a resume has overtaken. The next
%% resume or ack says the same.
acknowledged(Seq, #state{resumed = true, on_wire = OnWire, ring = Ring} = State) ->
    case mod_event_feed_window:acknowledged(Seq, OnWire) of
	{ok, Moved} -> pump(State#state{on_wire = Moved, ring = mod_event_feed_ring:trim(Seq, Ring)});
	error -> State
    end;
acknowledged(_Seq, State) ->
    State.

resume(Seq, Args, #state{ring = Ring, on_wire = OnWire} = State) ->
    pump(State#state{resumed = true, restored = false, unanswered = 0,
		     host = maps:get(host, Args, State#state.host),
		     token = [{<<"token">>, Token} || #{token := Token} <- [Args]],
		     ring = mod_event_feed_ring:trim(Seq, Ring),
		     on_wire = mod_event_feed_window:begin_at(Seq, OnWire)}).

%% set_back begins another epoch with the events that are kept. The component has
%% events of this epoch that this run has not sent, or it has had some and does not
%% know the epoch any more: the server was set back to an earlier state, for example
%% from a backup. To go on would give numbers twice.
set_back(#state{epoch = Epoch, source = Source} = State) ->
    ?WARNING_MSG("The component does not agree about epoch ~ts: was the server set back to an earlier "
		 "state? A new epoch begins", [Epoch]),
    hello(State#state{epoch = mod_event_feed_spool:new_epoch(Source), previous = Epoch,
		      restored = false, on_wire = mod_event_feed_window:new(0)}).

%%% Snapshots

%% ask_sessions makes the sessions of a host that are older than this process
%% report themselves.
ask_sessions(Host, #state{sessions = Sessions, unreported = Unreported} = State) ->
    Asked = mod_event_feed_sessions:ask(Host, Sessions),
    _ = [erlang:send_after(?REPORTS, self(), reports_due) || Asked /= []],
    State#state{unreported = lists:foldl(fun(Pid, Pids) -> Pids#{Pid => true} end, Unreported, Asked)}.

begin_snapshot(#state{snapshot = {waiting, Id}, unreported = Unreported} = State) when Unreported == #{} ->
    mark(<<"snapshot-start">>, Id, [], State#state{snapshot = {running, Id, start, 0}});
begin_snapshot(State) ->
    State.

%% snapshot_slice appends sessions when all else has been sent: so the snapshot,
%% which may be longer than the ring, never pushes anything out of it.
snapshot_slice(#state{snapshot = {running, Id, Cursor, Count}, sessions = Sessions} = State) ->
    {Facts, Next} = mod_event_feed_sessions:slice(Cursor, ?SLICE, Sessions),
    State1 = lists:foldl(fun keep/2, State#state{snapshot = none}, Facts),
    Count1 = Count + length(Facts),
    case Next of
	done -> mark(<<"snapshot-end">>, Id, [{<<"count">>, integer_to_binary(Count1)}], State1);
	_ -> pump(State1#state{snapshot = {running, Id, Next, Count1}})
    end;
snapshot_slice(State) ->
    State.

%% finish_snapshot completes one at the end of this process, or the component
%% would take the sessions that it does not list for gone.
finish_snapshot(#state{snapshot = {running, _, _, _}} = State) ->
    finish_snapshot(snapshot_slice(State));
finish_snapshot(State) ->
    State.

mark(Kind, Id, Attrs, State) ->
    append(#fact{kind = Kind, host = State#state.host, t = erlang:system_time(millisecond),
		 attrs = [{<<"id">>, Id} | Attrs]}, State).
