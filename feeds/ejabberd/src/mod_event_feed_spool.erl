%%% What survives a restart of the server: after a clean stop the events that
%%% were not acknowledged, otherwise the name of the epoch that was lost.
-module(mod_event_feed_spool).

-export([save/1, begin_epoch/1, new_epoch/1]).

-include("logger.hrl").

-define(RING, "event_feed.ring").
-define(EPOCH, "event_feed.epoch").
%% Changes when what is saved gets another form.
-define(VERSION, 1).
-define(MAGIC, "event_feed 1\n").

%% save keeps what a source needs to go on, in a map with its name. It writes in
%% such a way that the file is either whole or not there.
-spec save(#{source := binary(), epoch := binary(), atom() => term()}) -> ok | {error, term()}.
save(Saved) ->
    write(?RING, term_to_binary(Saved#{version => ?VERSION})).

%% begin_epoch returns what the source has saved, or a new epoch and the one
%% before it.
-spec begin_epoch(binary()) -> {continued, map()} | {new, binary(), binary() | none}.
begin_epoch(Source) ->
    case take() of
	#{source := Source, version := ?VERSION} = Saved ->
	    {continued, Saved};
	_ ->
	    Previous = case read(?EPOCH) of
			   {ok, {Source, Epoch}} -> Epoch;
			   _ -> none
		       end,
	    {new, new_epoch(Source), Previous}
    end.

%% new_epoch returns a name that no epoch has had, and writes it down.
-spec new_epoch(binary()) -> binary().
new_epoch(Source) ->
    <<Random:32>> = crypto:strong_rand_bytes(4),
    New = list_to_binary(io_lib:format("~.16b-~8.16.0b", [erlang:system_time(second), Random])),
    _ = write(?EPOCH, term_to_binary({Source, New})),
    New.

%% take returns what was saved, once: what was taken and lives on must not be
%% taken again after a crash.
take() ->
    case read(?RING) of
	{ok, Saved} ->
	    case file:delete(path(?RING)) of
		ok ->
		    Saved;
		{error, Why} ->
		    ?ERROR_MSG("Cannot remove ~ts, hence its events are not sent: ~ts",
			       [path(?RING), file:format_error(Why)]),
		    none
	    end;
	none ->
	    none
    end.

path(Name) ->
    filename:join(mnesia:system_info(directory), Name).

write(Name, Data) ->
    Path = path(Name),
    New = Path ++ ".new",
    Text = [?MAGIC, <<(erlang:crc32(Data)):32>>, Data],
    maybe_done(Path,
	       [fun() -> filelib:ensure_dir(Path) end,
		fun() -> write_and_sync(New, Text) end,
		fun() -> file:rename(New, Path) end]).

maybe_done(_Path, []) ->
    ok;
maybe_done(Path, [Step | Steps]) ->
    case Step() of
	ok ->
	    maybe_done(Path, Steps);
	{error, Why} = Err ->
	    ?ERROR_MSG("Cannot write ~ts: ~ts", [Path, file:format_error(Why)]),
	    Err
    end.

write_and_sync(Path, Text) ->
    case file:open(Path, [write, raw, binary]) of
	{ok, File} ->
	    %% It holds users' messages.
	    Done = case file:change_mode(Path, 8#600) of
		       ok -> put_and_sync(File, Text);
		       Err -> Err
		   end,
	    _ = file:close(File),
	    Done;
	Err ->
	    Err
    end.

put_and_sync(File, Text) ->
    case file:write(File, Text) of
	ok -> file:sync(File);
	Err -> Err
    end.

read(Name) ->
    case file:read_file(path(Name)) of
	{ok, <<?MAGIC, Sum:32, Data/binary>>} ->
	    case erlang:crc32(Data) of
		Sum -> {ok, binary_to_term(Data)};
		_ -> damaged(Name)
	    end;
	{ok, _} ->
	    damaged(Name);
	{error, enoent} ->
	    none;
	{error, Why} ->
	    ?ERROR_MSG("Cannot read ~ts: ~ts", [path(Name), file:format_error(Why)]),
	    none
    end.

damaged(Name) ->
    ?ERROR_MSG("~ts is damaged and not used; it is kept as ~ts.damaged", [path(Name), Name]),
    _ = file:rename(path(Name), path(Name ++ ".damaged")),
    none.
