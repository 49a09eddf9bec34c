// Contender: Kafka Streams, exactly_once_v2, one thread, RocksDB store with its cache, the same Avro schemas.
// Arguments: job file with one "name=value" a line. Compiled by the benchmark with javac, without any build tool.

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.internals.DefaultKafkaClientSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

public final class Balances {
  private static final List<Double> COMMITS_S = Collections.synchronizedList(new ArrayList<>());

  /** Notes how long each commit took: from the offsets' sending, which comes first in it, to the answer of EndTxn. */
  static final class TimedProducer extends KafkaProducer<byte[], byte[]> {
    private long began;

    TimedProducer(Map<String, Object> config) {
      super(config, new ByteArraySerializer(), new ByteArraySerializer());
    }

    @Override
    public void sendOffsetsToTransaction(Map<TopicPartition, OffsetAndMetadata> offsets, ConsumerGroupMetadata group) {
      began = System.nanoTime();
      super.sendOffsetsToTransaction(offsets, group);
    }

    @Override
    public void commitTransaction() {
      super.commitTransaction();
      COMMITS_S.add((System.nanoTime() - began) / 1e9);
    }
  }

  static final class Sums implements Processor<byte[], byte[], byte[], byte[]> {
    private final GenericDatumReader<GenericRecord> reader;
    private final GenericDatumWriter<GenericRecord> writer;
    private final Schema balanceSchema;
    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(256);
    private BinaryDecoder decoder;
    private BinaryEncoder encoder;
    private GenericRecord movement;
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<byte[], byte[]> store;

    Sums(Schema movementSchema, Schema balanceSchema) {
      this.reader = new GenericDatumReader<>(movementSchema);
      this.writer = new GenericDatumWriter<>(balanceSchema);
      this.balanceSchema = balanceSchema;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      this.context = context;
      this.store = context.getStateStore("balances");
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      try {
        byte[] value = record.value();
        decoder = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, decoder);
        movement = reader.read(movement, decoder);
        byte[] old = store.get(record.key());
        long balance = (old == null ? 0 : Long.parseLong(new String(old, StandardCharsets.US_ASCII)))
            + (Long) movement.get("amount");
        store.put(record.key(), Long.toString(balance).getBytes(StandardCharsets.US_ASCII));
        GenericRecord output = new GenericData.Record(balanceSchema);
        for (Schema.Field field : balanceSchema.getFields()) {
          switch (field.name()) {
            case "balance" -> output.put(field.pos(), balance);
            case "type" -> output.put(field.pos(), "account.balance_changed");
            default -> output.put(field.pos(), movement.get(field.pos()));
          }
        }
        bytes.reset();
        bytes.write(value, 0, 5);
        encoder = EncoderFactory.get().binaryEncoder(bytes, encoder);
        writer.write(output, encoder);
        encoder.flush();
        context.forward(record.withValue(bytes.toByteArray()));
      } catch (java.io.IOException error) {
        throw new java.io.UncheckedIOException(error);
      }
    }
  }

  /** Writes when each restore began and ended, and how many records it took. */
  static final class Restores implements StateRestoreListener {
    private final List<String> ended = Collections.synchronizedList(new ArrayList<>());

    @Override
    public void onRestoreStart(TopicPartition partition, String store, long from, long to) {
      ended.add("[\"start\"," + System.currentTimeMillis() + ",0]");
    }

    @Override
    public void onBatchRestored(TopicPartition partition, String store, long to, long count) {}

    @Override
    public void onRestoreEnd(TopicPartition partition, String store, long count) {
      ended.add("[\"end\"," + System.currentTimeMillis() + "," + count + "]");
    }
  }

  public static void main(String[] arguments) throws Exception {
    Properties job = new Properties();
    try (var lines = Files.newBufferedReader(Path.of(arguments[0]))) {
      job.load(lines);
    }
    Schema movement = new Schema.Parser().parse(job.getProperty("movement"));
    Schema balance = new Schema.Parser().parse(job.getProperty("balance"));
    Topology topology = new Topology();
    topology.addSource("in", job.getProperty("input"));
    topology.addProcessor("sums", () -> new Sums(movement, balance), "in");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore("balances"), Serdes.ByteArray(), Serdes.ByteArray())
            .withCachingEnabled(),
        "sums");
    topology.addSink("out", job.getProperty("output"), "sums");

    Restores restores = new Restores();
    KafkaStreams streams =
        new KafkaStreams(topology, config(job), new DefaultKafkaClientSupplier() {
          @Override
          public Producer<byte[], byte[]> getProducer(Map<String, Object> config) {
            return new TimedProducer(config);
          }
        });
    streams.setGlobalStateRestoreListener(restores);
    Path ready = Path.of(job.getProperty("result").replace(".json", ".ready"));
    streams.setStateListener((now, before) -> {
      if (now == KafkaStreams.State.RUNNING) {
        try {
          Files.writeString(ready, Double.toString(System.currentTimeMillis() / 1000.0));
        } catch (java.io.IOException error) {
          throw new java.io.UncheckedIOException(error);
        }
      }
    });
    CountDownLatch stopped = new CountDownLatch(1);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      streams.close();
      try {
        Files.writeString(
            Path.of(job.getProperty("result")),
            "{\"commits_s\":" + COMMITS_S + ",\"restores\":" + restores.ended + "}");
      } catch (java.io.IOException error) {
        throw new java.io.UncheckedIOException(error);
      }
      stopped.countDown();
    }));
    streams.start();
    stopped.await();
  }

  private static Properties config(Properties job) {
    Properties config = new Properties();
    config.put(StreamsConfig.APPLICATION_ID_CONFIG, job.getProperty("app"));
    config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.getProperty("bootstrap"));
    config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, job.getProperty("commit_ms"));
    config.put(StreamsConfig.STATE_DIR_CONFIG, job.getProperty("state"));
    config.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
    config.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
    config.put("auto.offset.reset", "earliest");
    config.put("security.protocol", "SSL");
    config.put("ssl.truststore.type", "PEM");
    config.put("ssl.truststore.location", job.getProperty("ca"));
    config.put("ssl.keystore.type", "PEM");
    config.put("ssl.keystore.location", job.getProperty("bundle"));
    config.put("ssl.endpoint.identification.algorithm", "");
    return config;
  }
}
